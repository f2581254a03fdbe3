"""Wrappers for what an agent has to see. The public path of what stands in ``sb3_ncde/envs``."""

from sb3_ncde.envs.previous_action import PreviousAction
from sb3_ncde.envs.wrappers import ActionMaskObservation

__all__ = ["ActionMaskObservation", "PreviousAction"]
