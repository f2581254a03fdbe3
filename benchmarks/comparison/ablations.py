"""NCDEPolicy with one argument changed, on a task of each group."""

from typing import Any

from comparison.agents import AGENTS, Agent

BASE = "NCDEPolicy"
TASKS = ("CartPole", "irregular Pendulum", "Pendulum, a quarter missing")
SEEDS = (0, 1, 2)
CHANGES: dict[str, dict[str, Any]] = {
    "no time channel": {"time_channel": False},
    "no rates": {"rates": False},
    "no skip": {"skip": False},
    "no path in the field": {"path_in_field": False},
    "no scale": {"scale_increments": False},
    "H = 2, S = 1": {"history_length": 2, "hop_length": 1},
    "H = 3, S = 1": {"history_length": 3, "hop_length": 1},
    "H = 8, S = 1": {"history_length": 8, "hop_length": 1},
    "H = 8, S = 4": {"history_length": 8, "hop_length": 4},
    "H = 8, S = 8": {"history_length": 8, "hop_length": 8},
    "H = 16, S = 8": {"history_length": 16, "hop_length": 8},
    "H = 32, S = 16": {"history_length": 32, "hop_length": 16},
    "midpoint": {"solver": "midpoint"},
    "rk4": {"solver": "rk4"},
    "hermite, rk4": {"interpolation": "hermite", "solver": "rk4"},
    "rectilinear": {"interpolation": "rectilinear"},
    "tanh for the norm": {"feature_norm": "tanh"},
    "no norm": {"feature_norm": "none"},
    "traces": {"traces": True},
    "no equation: H = 1, traces": {"traces": True, "history_length": 1, "hop_length": 1},
    "two encoders": {"share_encoder": False},
    "latent size 8": {"latent_size": 8},
    "latent size 32": {"latent_size": 32},
    "field width 16": {"field_width": 16},
    "field width 64": {"field_width": 64},
}
"""By name, arguments in place of those of the task's settings."""

ABLATIONS = {
    f"{BASE}, {name}": Agent(
        algorithm="ppo_lstm", view="sensors", ours=True, policy_kwargs=change, only=TASKS, steps_per_second=1000
    )
    for name, change in CHANGES.items()
}
AGENTS_OF_ABLATIONS = {BASE: AGENTS[BASE]} | ABLATIONS
"""The base among them, whose runs are those of the comparison."""
