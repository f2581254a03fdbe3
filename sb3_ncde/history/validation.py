"""What a policy refuses to act on: rows that do not fit the state, values that are not finite, time that runs back.

The checks run when the agent acts, not on minibatches, whose rows it has acted on and whose padding has no time.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_ncde.history.observation_history import ObservationHistory, State
from sb3_ncde.history.window_rule import Array

COARSE, COARSEST = 0.01, 0.5
"""Spacing of float32 at a timestamp, in nominal steps, from which on it is warned of, and refused."""
LARGEST = 1e18
"""Above it, the square of a value (of which the scale of changes and layer norms are made) overflows float32."""
NORMALIZED_TIME = (
    "If the environment is wrapped in VecNormalize, time must stay out of it: use "
    "sb3_ncde.normalize.VecNormalizeObserved(env, skip=[time_key]), or make time a key of a Dict observation and pass "
    "norm_obs_keys with all the other keys."
)


def check_keys(
    observation: np.ndarray | dict[str, np.ndarray], space: spaces.Space[Any], optional: Sequence[str] = ()
) -> None:
    """Raise ValueError if an observation of a Dict space has other keys than the space, or rows that do not match.

    :param observation: of one environment or of several
    :param space: of the training
    :param optional: keys that may be absent
    """
    if not isinstance(space, spaces.Dict):
        return
    keys = set(observation) if isinstance(observation, dict) else None
    if isinstance(observation, dict) and set(space.spaces) - set(optional) <= set(observation) <= set(space.spaces):
        sizes = {key: np.prod(space[key].shape or ()) for key in observation}
        if len({np.size(observation[key]) / size for key, size in sizes.items() if size}) > 1:
            shapes = {key: np.shape(value) for key, value in observation.items()}
            raise ValueError(
                f"The observation has the shapes {shapes}, which is not one row, nor several, as many for each key, of "
                f"{ {key: part.shape for key, part in space.spaces.items()} }."
            )
    else:
        found = type(observation).__name__ if keys is None else f"one with {sorted(map(str, keys))}"
        found += " (of what reset() returns, pass the first)" if isinstance(observation, tuple) else ""
        raise ValueError(
            f"This policy was made for a Dict observation with the keys {sorted(space.spaces)}"
            f"{f' ({list(optional)} may be left out)' if optional else ''}, but got {found}. Pass "
            "observations as the environment of the training returns them, the time and the action mask among them."
        )


def check_state(
    n_rows: int, episode_starts: th.Tensor, history: ObservationHistory, state: State, sequences: bool
) -> None:
    """Raise ValueError if the state is another policy's, or rows or episode starts are not one per environment.

    :param n_rows: of the observation
    :param episode_starts: one for each row
    :param history: layout of the state
    :param state: of N environments
    :param sequences: whether there may be several rows for each environment, one after the other
    """
    n_envs, size = state[0].shape[1:]
    if size != history.size:
        raise ValueError(
            f"The state has a size of {size}, but this policy's has {history.size}: it is the state of another policy. "
            "Pass the state that predict() of this one returned, or None to begin with an empty history."
        )
    if n_rows != n_envs and not (sequences and n_rows % n_envs == 0):
        raise ValueError(
            f"Observations of {n_rows} environments, but a state of {n_envs}: pass the state that predict() "
            "returned for the same environments, or None to begin with an empty history."
        )
    if episode_starts.numel() != n_rows:
        raise ValueError(
            f"episode_start has {episode_starts.numel()} values for {n_rows} environments: pass one for each."
        )


def check_finite(
    observation: PyTorchObs,
    features: th.Tensor,
    episode_starts: th.Tensor,
    history: ObservationHistory,
    state: State,
) -> None:
    """Raise ValueError for NaN, infinite or too large observations, and say where they are.

    :param observation: as the environment gave it
    :param features: features and time that were made of it, (N, D + 1)
    """
    rows = features.numpy(force=True)
    if plainly_finite(rows):
        return
    allowed = np.abs(rows) <= LARGEST
    if history.missing_values:
        allowed[:, :-1] |= np.isnan(rows[:, :-1])
    if allowed.all():
        return
    if history.missing_values and bool(th.isnan(features[:, -1]).any()):
        env = int(th.isnan(features[:, -1]).nonzero()[0])
        raise ValueError(
            f"{_where(env, episode_starts, history, state)}: the time is nan. Values may be missing, the time of an "
            "observation may not: leave it out of what fails (groups of sb3_ncde.sensors.SensorDropout)."
        )
    for name, values in observation.items() if isinstance(observation, dict) else [("", observation)]:
        if not values.is_floating_point():
            continue
        large = values.abs() > LARGEST
        wrong = large | th.isnan(values)
        if history.missing_values and bool(large.any()):
            wrong = large
        if not bool(wrong.any()):
            continue
        env, *index = wrong.nonzero()[0].tolist()
        value = values[env][tuple(index)].item()
        raise ValueError(
            f"{_where(env, episode_starts, history, state)}: the observation{name and f' {name!r}'} is "
            f"{value:g} at index {index}. Observations must be finite and not above {LARGEST:g}, where float32 "
            "overflows: normalise them (VecNormalize); where NaN means that a sensor has no value, pass "
            "missing_values=True, and use sb3_ncde.normalize.VecNormalizeObserved for VecNormalize."
        )
    env = int((~allowed).any(axis=1).nonzero()[0][0])
    raise ValueError(
        f"{_where(env, episode_starts, history, state)}: the observation is finite, but its features are not, or above "
        f"{LARGEST:g}; the features extractor overflows or its weights have diverged (a lower learning rate may help)."
    )


def plainly_finite(rows: Array) -> bool:
    """Return whether all numbers are finite and not too large, by the quickest look at all of them."""
    return bool(np.vdot(rows, rows) <= LARGEST**2)  # not so for NaN


def check_time(time: th.Tensor, episode_starts: th.Tensor, history: ObservationHistory, state: State) -> None:
    """Raise ValueError if time runs backwards, or timestamps are too large for float32 to tell steps apart.

    :param time: of the observations as observed, (N,)
    :param episode_starts: 1 where an observation is the first of its episode, (N,)
    """
    if not history.timestamps:
        backwards = time < 0
        if bool(backwards.any()):
            env = int(backwards.nonzero()[0])
            raise ValueError(
                f"{_where(env, episode_starts, history, state)}: the elapsed time since the previous observation is "
                f"{time[env].item():g}, but time cannot run backwards. {NORMALIZED_TIME}"
            )
        return
    if bool((time < 0).any()):
        env = int((time < 0).nonzero()[0])
        raise ValueError(
            f"{_where(env, episode_starts, history, state)}: the timestamp is {time[env].item():g}, but timestamps "
            f"count from the episode's beginning or some time before it. {NORMALIZED_TIME}"
        )
    spacing = time.nextafter(th.full_like(time, th.inf)) - time
    coarse = spacing > COARSE * history.unit
    if bool(coarse.any()):
        env = int(spacing.argmax())
        problem = (
            f"around the timestamp {time[env].item():g}, float32 counts in steps of {spacing[env].item():g}, too "
            f"coarse for dt={history.unit:g}. Let timestamps begin at 0 with the episode, or observe elapsed time."
        )
        if spacing[env] > COARSEST * history.unit:
            raise ValueError(f"{_where(env, episode_starts, history, state)}: {problem}")
        warnings.warn(f"In a long episode, {problem}", stacklevel=5)
    count, last_time, _ = history.unpack(state)
    backwards = (time < last_time) & (count > 0) & (episode_starts.flatten() == 0)
    if bool(backwards.any()):
        env = int(backwards.nonzero()[0])
        raise ValueError(
            f"{_where(env, episode_starts, history, state)}: the timestamp is {time[env].item():g} after "
            f"{last_time[env].item():g}, but time cannot run backwards within an episode. If it is the time since the "
            "observation before, set time_kind='elapsed'; at an episode's beginning pass episode_start (in training: "
            f"the environment was reset without the algorithm knowing, by a callback perhaps; after one "
            f"has stopped learn(), call model.set_env(model.get_env())). {NORMALIZED_TIME}"
        )


def check_gradient(gradient: th.Tensor) -> None:
    """Raise ValueError for a loss whose gradient is not finite, before the optimizer makes all weights NaN of it.

    :param gradient: of values or log-probabilities, one of each row of a minibatch
    """
    # The sum of finite numbers is finite, or else they are looked at one by one.
    if np.isfinite(np.add.reduce(gradient.numpy(force=True), axis=None)) or bool(gradient.isfinite().all()):
        return
    if len(gradient) == 1:
        raise ValueError(
            "The loss of a minibatch of one row is not finite: RecurrentPPO divides advantages by their standard "
            "deviation, which one row does not have. n_steps * n_envs, divided by batch_size, leaves a remainder of 1: "
            "choose a batch_size that divides n_steps * n_envs. This minibatch has changed no weight."
        )
    raise ValueError(
        f"The loss of a minibatch of {len(gradient)} rows is not finite (NaN or infinite gradients). Look for NaN in "
        "rewards or in what else the loss is made of; if training had diverged before, use a lower learning_rate or "
        "max_grad_norm. This minibatch has changed no weight."
    )


def check_mask(
    mask: th.Tensor, choices: list[int], episode_starts: th.Tensor, history: ObservationHistory, state: State
) -> None:
    """Raise ValueError if an action mask has other values than 0 and 1, or allows nothing.

    :param mask: (N, sum of choices)
    :param choices: options of each choice that an action makes
    """
    binary = ((mask == 0) | (mask == 1)).all(dim=1)
    if not bool(binary.all()):
        env = int((~binary).nonzero()[0])
        raise ValueError(
            f"{_where(env, episode_starts, history, state)}: the action mask is {mask[env].tolist()}, but its values "
            "must be 0 or 1. If the environment is wrapped in VecNormalize, the mask must stay out of it: pass "
            "norm_obs_keys without it."
        )
    for choice, options in enumerate(th.split(mask, choices, dim=1)):
        nothing = (options == 0).all(dim=1)
        if bool(nothing.any()):
            env = int(nothing.nonzero()[0])
            raise ValueError(
                f"{_where(env, episode_starts, history, state)}: the action mask {mask[env].int().tolist()} allows "
                f"none of the {options.shape[1]} options of choice {choice}; at least one must be 1."
            )


def refuse_to_be_traced(name: str) -> None:
    """Raise RuntimeError while PyTorch traces.

    :param name: of what is traced
    """
    if th._C._get_tracing_state() is not None:
        raise RuntimeError(
            f"{name} cannot be traced (torch.jit, ONNX): which observation stands where in a window is settled "
            "outside of PyTorch, so that a trace would keep the windows of its example for ever."
        )


def _where(env: int, episode_starts: th.Tensor, history: ObservationHistory, state: State) -> str:
    """Name an environment, and its step by the observations that its history has seen of the episode."""
    count = history.unpack(state)[0]
    step = 0 if episode_starts.flatten()[env] else int(count[env])
    return f"Environment {env} of {len(count)}, step {step} of its episode"
