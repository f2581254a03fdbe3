"""Classic control without velocities, and with the sensors that users have: irregular, failing, noisy, late.

Registered are, for CartPole, Pendulum, Acrobot and MountainCarContinuous, ``sb3_ncde/<Task>NoVel-v1``, which shows
positions only; ``sb3_ncde/Irregular<Task>NoVel-v1``, which is observed after 1 to 5 steps of physics and tells how long
that took; and ``sb3_ncde/SensorLoss<Task>NoVel-v1``, half of whose values are missing (NaN). All take the arguments of
:func:`make`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium as gym
from gymnasium.wrappers import DelayObservation

from sb3_ncde.envs.missing import AsynchronousSensors, SensorDropout
from sb3_ncde.envs.sampling import IrregularSampling
from sb3_ncde.envs.wrappers import NoisyObservation, SelectColumns


class Task(NamedTuple):
    """An environment of Gymnasium.

    :param env_id: its name
    :param positions: columns of its observation that are no velocities
    :param dt: what a step takes, in seconds (MountainCarContinuous has no unit of time: a step)
    """

    env_id: str
    positions: list[int]
    dt: float


TASKS = {
    "CartPole": Task("CartPole-v1", [0, 2], 0.02),
    "Pendulum": Task("Pendulum-v1", [0, 1], 0.05),
    "Acrobot": Task("Acrobot-v1", [0, 1, 2, 3], 0.2),
    "MountainCarContinuous": Task("MountainCarContinuous-v0", [0], 1.0),
}


def make(
    task: str,
    noise: float = 0.0,
    delay: int = 0,
    sampling: Mapping[str, Any] | None = None,
    asynchronous: Mapping[str, Any] | None = None,
    dropout: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> gym.Env[Any, Any]:
    """Return a task that shows positions only.

    Its time limit is Gymnasium's, in steps of physics, however often it is observed.

    :param task: a name in :data:`TASKS`
    :param noise: standard deviation of the noise of each column
    :param delay: by how many steps of physics observations are late; before the first is due, zeros are observed
    :param sampling: arguments of :class:`~sb3_ncde.sensors.IrregularSampling`; None: each step is observed
    :param asynchronous: arguments of :class:`~sb3_ncde.sensors.AsynchronousSensors`; None: sensors are synchronous
    :param dropout: arguments of :class:`~sb3_ncde.sensors.SensorDropout`; None: no values are missing
    :param kwargs: arguments of Gymnasium's environment
    """
    env_id, positions, dt = TASKS[task]
    env: gym.Env[Any, Any] = SelectColumns(gym.make(env_id, **kwargs), positions)
    if noise:
        env = NoisyObservation(env, noise)
    if delay:
        env = DelayObservation(env, delay)
    if sampling is not None:
        env = IrregularSampling(env, **{"dt": dt, **sampling})
    if asynchronous is not None:
        env = AsynchronousSensors(env, **asynchronous)
    if dropout is not None:
        env = SensorDropout(env, **dropout)
    return env


VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "Irregular": {"sampling": {"low": 1, "high": 5}},
    "SensorLoss": {"dropout": {"probability": 0.5}},
}


def register() -> None:
    """Register every variant of every task with Gymnasium."""
    for task in TASKS:
        for variant, kwargs in VARIANTS.items():
            gym.register(f"sb3_ncde/{variant}{task}NoVel-v1", "sb3_ncde.envs:make", kwargs={"task": task, **kwargs})
