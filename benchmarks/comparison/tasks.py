"""The tasks: which body, what its sensors show, and at which other sensors an agent is evaluated without training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.wrappers import FlattenObservation
from memory import TASKS as MEMORY_TASKS

from sb3_ncde.envs import TASKS as CLASSIC
from sb3_ncde.envs.tasks import Task as Body
from sb3_ncde.sensors import AsynchronousSensors, IrregularSampling, SelectColumns, SensorDropout
from sb3_ncde.wrappers import PreviousAction

Sensors = Mapping[str, Mapping[str, Any]]
"""Arguments of each of :data:`WRAPPERS` that is used, by its name."""
WRAPPERS: dict[str, Callable[..., gym.Env[Any, Any]]] = {
    "sampling": IrregularSampling,
    "asynchronous": AsynchronousSensors,
    "dropout": SensorDropout,
}
BODIES = CLASSIC | {
    "Hopper": Body("Hopper-v5", list(range(5)), 0.008),
    "HalfCheetah": Body("HalfCheetah-v5", list(range(8)), 0.05),
    "Walker2d": Body("Walker2d-v5", list(range(8)), 0.008),
}
"""By name; positions are the columns that are no velocities, ``dt`` the seconds of a step."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task.

    :param group: regular, irregular, missing or long; or "control": it stands beside another task, and does not count
        in what is said over tasks
    :param steps: of training; of SAC ``sac_steps``, 0 where actions are discrete
    :param make: makes the environment, given its sensors and whether to show everything (but for the future)
    :param zoo: the environments whose settings the RL Zoo has for PPO, for RecurrentPPO and for SAC
    :param ours: the entry of ``configs/ppo_ncde.yml``; None: there is none
    :param settings: of PPO on a long task, beside those of ``memory.py`` for all
    :param sensors: of the training
    :param others: sensors at which a trained agent is evaluated, by a number; :attr:`axis` says of what
    :param best: the greatest return that there is, which then is what an agent that sees everything reaches
    :param headline: whether it has ten seeds, and comes first
    """

    group: str
    steps: int
    make: Callable[[Sensors, bool], gym.Env[Any, Any]]
    zoo: Mapping[str, str] = field(default_factory=dict)
    ours: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    sac_steps: int = 0
    dt: float = 1.0
    sensors: Sensors = field(default_factory=dict)
    others: Mapping[float, Sensors] = field(default_factory=dict)
    axis: str = ""
    best: float | None = None
    headline: bool = False

    @property
    def timed(self) -> bool:
        """Whether time is observed."""
        return "sampling" in self.sensors

    @property
    def missing(self) -> bool:
        """Whether values may be missing."""
        return "dropout" in self.sensors or "asynchronous" in self.sensors


def make_body(name: str, shows_action: bool, sensors: Sensors, everything: bool) -> gym.Env[Any, Any]:
    """Return a body that shows its positions through sensors; or everything, at the same times.

    :param shows_action: whether positions come with the action that led to them
    """
    body = BODIES[name]
    env: gym.Env[Any, Any] = gym.make(body.env_id)
    if not everything:
        env = SelectColumns(env, body.positions)
        if shows_action:
            env = PreviousAction(env)
    for kind, wrapper in WRAPPERS.items():
        if kind in sensors and (kind == "sampling" or not everything):
            arguments = {"dt": body.dt, **sensors[kind]} if kind == "sampling" else sensors[kind]
            env = wrapper(env, **arguments)
    return FlattenObservation(env) if everything else env


def make_memory_task(name: str, sensors: Sensors, everything: bool) -> gym.Env[Any, Any]:
    """Return a task of ``memory.py``; its observations are vectors."""
    env = MEMORY_TASKS[name].make()
    return env if isinstance(env.observation_space, gym.spaces.Box) else FlattenObservation(env)


ALGORITHMS = ("ppo", "ppo_lstm", "sac")
ZOO = {
    "CartPole": ("CartPole-v1", "CartPoleNoVel-v1", None),
    "Pendulum": ("Pendulum-v1", "PendulumNoVel-v1", "Pendulum-v1"),
    "MountainCarContinuous": (
        "MountainCarContinuous-v0",
        "MountainCarContinuousNoVel-v0",
        "MountainCarContinuous-v0",
    ),
    "Acrobot": ("Acrobot-v1", "Acrobot-v1", None),
    "Hopper": ("Hopper-v4", "HopperBulletEnv-v0", "Hopper-v4"),
    "HalfCheetah": ("HalfCheetah-v4", "HalfCheetahBulletEnv-v0", "HalfCheetah-v4"),
    "Walker2d": ("Walker2d-v4", "Walker2DBulletEnv-v0", "Walker2d-v4"),
}
"""Whose settings of PPO, of RecurrentPPO and of SAC (None: it has discrete actions) a body's tasks have."""


def _of_body(name: str, group: str, steps: int, sensors: Sensors | None = None, **kwargs: Any) -> Task:
    """Return a task; where time is irregular it shows the previous action, but for a control.

    How far an action that is held has moved the body depends on how long it was held.
    """
    sensors = sensors or {}
    mean = (sensors["sampling"]["low"] + sensors["sampling"]["high"]) / 2 if "sampling" in sensors else 1.0
    return Task(
        group=group,
        steps=steps,
        make=partial(make_body, name, "sampling" in sensors and group != "control"),
        zoo={algorithm: env_id for algorithm, env_id in zip(ALGORITHMS, ZOO[name], strict=True) if env_id},
        dt=BODIES[name].dt * mean if "sampling" in sensors else 1.0,
        sensors=sensors,
        **kwargs,
    )


def _held(steps: Sequence[int]) -> dict[str, Any]:
    axis = "steps of physics from one observation to the next"
    return {"others": {n: {"sampling": {"low": n, "high": n}} for n in steps}, "axis": axis}


def _failing(rates: Sequence[float]) -> dict[str, Any]:
    axis = "share of the values that are missing"
    return {"others": {rate: {"dropout": {"probability": rate}} for rate in rates}, "axis": axis}


SAMPLING = {"sampling": {"low": 1, "high": 5}}
SHORTER = {"sampling": {"low": 1, "high": 3}}
"""For a body whose step is of 8 ms: it falls while an action is held for long."""
QUARTER = {"dropout": {"probability": 0.25}}
RATES = (0.0, 0.1, 0.25, 0.5, 0.75)

TASKS = {
    "CartPole": _of_body("CartPole", "regular", 100_000, ours="sb3_ncde/CartPoleNoVel-v1", headline=True),
    "Pendulum": _of_body(
        "Pendulum", "regular", 100_000, ours="sb3_ncde/PendulumNoVel-v1", sac_steps=20_000, headline=True
    ),
    "irregular Pendulum": _of_body(
        "Pendulum",
        "irregular",
        200_000,
        SAMPLING,
        ours="sb3_ncde/IrregularPendulumNoVel-v1",
        sac_steps=40_000,
        headline=True,
        **_held((1, 2, 3, 4, 5)),
    ),
    "MountainCarContinuous": _of_body(
        "MountainCarContinuous", "regular", 100_000, ours="MountainCarContinuousNoVel-v0", sac_steps=50_000
    ),
    "Acrobot": _of_body("Acrobot", "regular", 200_000),
    "irregular CartPole": _of_body(
        "CartPole",
        "irregular",
        100_000,
        SAMPLING,
        ours="sb3_ncde/IrregularCartPoleNoVel-v1",
        **_held((1, 2, 3, 4, 5)),
    ),
    "Pendulum, a quarter missing": _of_body(
        "Pendulum",
        "missing",
        200_000,
        QUARTER,
        ours="sb3_ncde/SensorLossPendulumNoVel-v1",
        sac_steps=40_000,
        **_failing(RATES),
    ),
    "CartPole, asynchronous": _of_body(
        "CartPole",
        "missing",
        100_000,
        {"asynchronous": {"periods": [5, 2]}},
        ours="sb3_ncde/SensorLossCartPoleNoVel-v1",
        others={n: {"asynchronous": {"periods": [2 * n + 1, n]}} for n in (1, 2, 3, 4)},
        axis="observations from one value of the angle to the next; of the position, twice as many and one",
    ),
} | {
    name: Task(
        group="long",
        steps=steps,
        make=partial(make_memory_task, name),
        settings=MEMORY_TASKS[name].settings,
        best=1.0,
    )
    for name, steps in {"cue within 64": 500_000, "RepeatFirstMedium": 500_000, "CountRecallEasy": 1_000_000}.items()
}
# MuJoCo last: each takes as long as all of the others of its group.
TASKS |= {
    "irregular Pendulum, actions hidden": _of_body(
        "Pendulum",
        "control",
        200_000,
        SAMPLING,
        ours="sb3_ncde/IrregularPendulumNoVel-v1",
        **_held((1, 2, 3, 4, 5)),
    ),
    "irregular CartPole, actions hidden": _of_body(
        "CartPole",
        "control",
        100_000,
        SAMPLING,
        ours="sb3_ncde/IrregularCartPoleNoVel-v1",
        **_held((1, 2, 3, 4, 5)),
    ),
    "Hopper": _of_body("Hopper", "regular", 200_000, sac_steps=100_000),
    "irregular Hopper": _of_body("Hopper", "irregular", 200_000, SHORTER, sac_steps=100_000, **_held((1, 2, 3))),
    "Hopper, a quarter missing": _of_body("Hopper", "missing", 200_000, QUARTER, sac_steps=100_000, **_failing(RATES)),
    "HalfCheetah": _of_body("HalfCheetah", "regular", 200_000, sac_steps=100_000),
    "Walker2d": _of_body("Walker2d", "regular", 200_000, sac_steps=100_000),
}
"""By name, in the order in which they are run: the headline's, then group by group."""
