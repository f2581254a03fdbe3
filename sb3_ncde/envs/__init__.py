"""Environments: tasks, what sensors do to them, spaces, normalisation. Nothing of policies or memory.

A wrapper of an environment or of its observations belongs here. Users import it from ``sb3_ncde.sensors``,
``sb3_ncde.wrappers`` or ``sb3_ncde.normalize``; of this package ``make`` and ``TASKS`` are public.
"""

from sb3_ncde.envs import memory_tasks
from sb3_ncde.envs.tasks import TASKS, make, register

__all__ = ["TASKS", "make"]

register()
memory_tasks.register()
