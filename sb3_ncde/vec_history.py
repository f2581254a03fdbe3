"""VecHistory: environments whose observation is the history of observations, for any algorithm of SB3."""

from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import (
    VecEnv,
    VecEnvWrapper,
    VecNormalize,
    VecTransposeImage,
    is_vecenv_wrapped,
    unwrap_vec_normalize,
)
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from sb3_ncde.acting.observation_history import Histories, append
from sb3_ncde.history.arguments import HistoryArguments
from sb3_ncde.history.conversion import converted
from sb3_ncde.history.diagnostics import ClockWatch, FailureWatch
from sb3_ncde.history.space import HistorySpace
from sb3_ncde.history.validation import NORMALIZED_TIME, check_finite, check_time, plainly_finite
from sb3_ncde.history.window_rule import Array

Flat = tuple[Array, Array | None]
"""Features (N, D) and time (N,) of observations, or no time."""


class VecHistory(VecEnvWrapper):
    """Environments whose observation is the packed history of their observations, (P,) in float32.

    What the history holds is what :class:`sb3_ncde.NCDEPolicy` would hold of the same observations, by the same code.
    It is read by :class:`sb3_ncde.NCDEExtractor`, which makes it the memory of any algorithm. The terminal observation
    of an episode is the history that ends with it.

    It is the outermost wrapper of observations: a VecNormalize belongs inside, as it would normalise counts and times.
    To SB3, which asks the VecNormalize of its environments for what was observed before normalisation, VecHistory then
    answers in its place, with histories.

    :param venv: environments with Box, Discrete, MultiDiscrete, MultiBinary or Dict observations. Images whose channels
        come last are transposed
    :param arguments: of :class:`sb3_ncde.history.arguments.HistoryArguments`: history_length, hop_length, dt, time_key,
        time_kind, missing_values, traces
    :raises TypeError: for an unknown argument, or a value of another type
    :raises ValueError: for a value out of range, a time that is not observed, or another VecHistory inside
    """

    observation_space: HistorySpace

    def __new__(cls, venv: VecEnv, **arguments: Any) -> "VecHistory":
        """Return one that stands for the VecNormalize inside, where there is one."""
        normalized = cls is VecHistory and isinstance(venv, VecEnv) and unwrap_vec_normalize(venv) is not None
        return super().__new__(_VecHistoryOfNormalized if normalized else cls)

    def __init__(self, venv: VecEnv, **arguments: Any) -> None:
        if not isinstance(venv, VecEnv):
            raise TypeError(
                f"VecHistory takes vectorised environments, but got {venv}: wrap it first, "
                "VecHistory(make_vec_env(env_id_or_function)) or VecHistory(DummyVecEnv([lambda: env]))."
            )
        if is_vecenv_wrapped(venv, VecHistory):
            raise ValueError("The environments are wrapped in VecHistory already.")
        known = [field.name for field in fields(HistoryArguments)]
        for name in arguments:
            if name not in known:
                raise TypeError(
                    f"VecHistory got an unexpected argument {name!r}. It takes {', '.join(known)}; how a history is "
                    "encoded is said to NCDEExtractor, in policy_kwargs: features_extractor_kwargs."
                )
        if _channels_last(venv.observation_space):
            venv = VecTransposeImage(venv)  # as SB3 does, but to histories it cannot
        space = HistorySpace(venv.observation_space, HistoryArguments(**arguments))
        VecEnvWrapper.__init__(self, venv, observation_space=space)
        self._layout = space.layout
        self._of_state = space.arguments.make_history(space.flattening.features_dim)
        self._clock = ClockWatch(space.arguments.dt, space.arguments.time_kind == "timestamp")
        self._failures = FailureWatch()
        self._histories = _empty(self.num_envs, space)

    def reset(self) -> Array:
        """Reset all environments.

        :return: histories of one observation each, (N, P)
        """
        starts = np.ones(self.num_envs, bool)
        flat = self._read(self.venv.reset(), starts)
        self._histories = self._appended(self._histories, flat, starts)
        return self._packed()

    def step_wait(self) -> VecEnvStepReturn:
        """Wait for a step that has been asked for.

        :return: histories (N, P), rewards, dones (N,), and infos, whose terminal observations are histories (P,)
        """
        observations, rewards, dones, infos = self.venv.step_wait()
        flat = self._read(observations, dones)
        for env in np.flatnonzero(dones):
            last = infos[env].get("terminal_observation")
            if last is not None:
                infos[env]["terminal_observation"] = self._terminal(
                    last, flat, dones & (np.arange(self.num_envs) != env), int(env)
                )
        self._histories = self._appended(self._histories, flat, dones)
        return self._packed(), rewards, dones, infos

    def _packed(self) -> Array:
        packed: Array = self._histories.packed.copy()
        return packed

    def _terminal(self, observation: Any, flat: Flat, starts: npt.NDArray[np.bool_], env: int) -> Array:
        """Return the history, (P,), that ends with the last observation of an environment's episode.

        :param flat: what all environments observe now, this one the first of its next episode
        :param starts: whether that is the first of an episode, for all others
        """
        if isinstance(observation, dict):
            one: Any = {key: np.asarray(value)[None] for key, value in observation.items()}
        else:
            one = np.asarray(observation)[None]
        last = self.observation_space.flattening.flatten(one)
        features, time = flat[0].copy(), None if flat[1] is None else flat[1].copy()
        features[env : env + 1] = last[0]
        if time is not None:
            time[env : env + 1] = last[1]
        self._check(features, time, th.from_numpy(features), starts)
        before = self._histories
        histories = Histories(before.packed[env : env + 1], before.phase[env : env + 1], before.empty, before.most)
        packed: Array = self._appended(histories, last, np.zeros(1, bool)).packed[0]
        return packed

    def _appended(self, histories: Histories, flat: Flat, starts: npt.NDArray[np.bool_]) -> Histories:
        features, time = flat
        time = np.ones(len(features), np.float32) if time is None else time
        return append(histories, features, time, starts, self._layout)

    def _read(self, observations: Any, starts: npt.NDArray[np.bool_]) -> Flat:
        """Return features (N, D) and time (N,) of observations, which are checked."""
        space = self.observation_space
        features, time = space.flattening.flatten(observations)
        if isinstance(observations, dict):
            named: Any = {key: th.from_numpy(np.asarray(value)) for key, value in observations.items()}
        else:
            named = th.from_numpy(np.asarray(observations))
        self._check(features, time, named, starts)
        if space.arguments.missing_values:
            self._failures.check(th.from_numpy(features))
        if time is not None:
            since = time - self._histories.packed[:, 1] if space.layout.timestamps else time
            steps = np.where(starts, 0.0, since / np.float32(space.arguments.dt)).astype(np.float32)
            self._clock.check(th.from_numpy(steps), th.from_numpy(starts.astype(np.float32)))
        return features, time

    def _check(self, features: Array, time: Array | None, named: Any, starts: npt.NDArray[np.bool_]) -> None:
        """Raise ValueError for values that are not finite, or time that runs backwards.

        :param named: the observations as tensors
        """
        if time is None and plainly_finite(features):
            return
        column = np.ones((len(features), 1), np.float32) if time is None else time[:, None]
        rows = th.from_numpy(np.concatenate((features, column), axis=1))
        first, state = th.from_numpy(starts.astype(np.float32)), self._state()
        check_finite(named, rows, first, self._of_state, state)
        if time is not None:
            check_time(th.from_numpy(time), first, self._of_state, state)

    def _state(self) -> tuple[th.Tensor, ...]:
        """Return the histories as :mod:`sb3_ncde.history.validation` reads them."""
        half = self._of_state.size
        packed = np.pad(self._histories.packed, ((0, 0), (0, 2 * half - self._layout.packed_size)))
        return th.from_numpy(packed[None, :, :half]), th.from_numpy(packed[None, :, half:])


def _empty(n_envs: int, space: HistorySpace) -> Histories:
    return Histories(np.zeros((n_envs, *space.shape), np.float32), np.zeros(n_envs, np.int64), empty=True, most=0)


def _channels_last(space: spaces.Space[Any]) -> bool:
    parts = space.spaces.values() if isinstance(space, spaces.Dict) else [space]
    return any(
        isinstance(part, spaces.Box) and is_image_space(part) and not is_image_space_channels_first(part)
        for part in parts
    )


def _of_inner(name: str) -> Any:
    """Return a property that is one of the VecNormalize inside."""
    return property(
        lambda self: getattr(self.normalize, name), lambda self, value: setattr(self.normalize, name, value)
    )


class _VecHistoryOfNormalized(VecHistory, VecNormalize):
    """VecHistory around a VecNormalize, for which it stands.

    SB3's off-policy algorithms store what was observed before normalisation, and normalise it when they sample it. They
    ask the VecNormalize of their environments for both, wherever it stands; here both are of histories.
    """

    training = _of_inner("training")
    norm_obs = _of_inner("norm_obs")
    norm_obs_keys = _of_inner("norm_obs_keys")
    norm_reward = _of_inner("norm_reward")
    obs_rms = _of_inner("obs_rms")
    ret_rms = _of_inner("ret_rms")
    returns = _of_inner("returns")
    clip_obs = _of_inner("clip_obs")
    clip_reward = _of_inner("clip_reward")
    gamma = _of_inner("gamma")
    epsilon = _of_inner("epsilon")
    old_reward = _of_inner("old_reward")

    def __init__(self, venv: VecEnv, **arguments: Any) -> None:
        super().__init__(venv, **arguments)
        normalize = unwrap_vec_normalize(self.venv)
        assert normalize is not None
        self.normalize = normalize
        self._transposes = _between(self.venv, normalize)
        names = normalize.norm_obs_keys if isinstance(self.observation_space.observed, spaces.Dict) else None
        self._names = None if names is None else frozenset(names)
        _refuse_normalized_time(normalize, self.observation_space)
        self._original = _empty(self.num_envs, self.observation_space)

    def reset(self) -> Array:
        """Reset all environments; return histories of one normalised observation each, (N, P)."""
        packed = super().reset()
        self._note_original(np.ones(self.num_envs, bool))
        return packed

    def step_wait(self) -> VecEnvStepReturn:
        """Wait for a step that has been asked for; see :meth:`VecHistory.step_wait`."""
        step = super().step_wait()
        self._note_original(step[2])
        return step

    def _note_original(self, starts: npt.NDArray[np.bool_]) -> None:
        observations: Any = self.normalize.get_original_obs()
        for transpose in self._transposes:
            observations = transpose.transpose_observations(observations)
        flat = self.observation_space.flattening.flatten(observations)
        self._original = self._appended(self._original, flat, starts)

    def __getattr__(self, name: str) -> Any:
        """Look for an attribute inside, but for one that the VecNormalize would have and has not (``obs_rms``)."""
        if isinstance(getattr(type(self), name, None), property):
            raise AttributeError(f"The VecNormalize inside has no {name}.")
        return super().__getattr__(name)

    def get_original_obs(self) -> Array:
        """Return the histories of the observations before normalisation, (N, P)."""
        packed: Array = self._original.packed.copy()
        return packed

    def get_original_reward(self) -> npt.NDArray[Any]:
        """Return the rewards of the last step before normalisation, (N,)."""
        return self.normalize.get_original_reward()

    def normalize_obs(self, obs: Any) -> Any:
        """Return histories, (P,) or (rows, P), with their observations normalised."""
        return self._converted(obs, self.normalize.normalize_obs)

    def unnormalize_obs(self, obs: Any) -> Any:
        """Return histories, (P,) or (rows, P), with their observations as they were before :meth:`normalize_obs`."""
        return self._converted(obs, self.normalize.unnormalize_obs)

    def normalize_reward(self, reward: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return rewards normalised."""
        return self.normalize.normalize_reward(reward)

    def unnormalize_reward(self, reward: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return rewards as they were before :meth:`normalize_reward`."""
        return self.normalize.unnormalize_reward(reward)

    def save(self, save_path: str) -> None:
        """Save the VecNormalize inside, for ``VecNormalize.load`` and ``VecNormalizeObserved.load``."""
        self.normalize.save(save_path)

    def _converted(self, packed: Array, convert: Any) -> Array:
        if not self.norm_obs or (self._names is not None and not self._names):
            same: Array = packed.copy()
            return same
        return converted(packed, self.observation_space, self._names, convert)


def _between(venv: VecEnv, normalize: VecNormalize) -> list[VecTransposeImage]:
    """Return the transpositions above a VecNormalize, the innermost first.

    :raises ValueError: if another wrapper above it changes observations
    """
    found: list[VecTransposeImage] = []
    while venv is not normalize:
        assert isinstance(venv, VecEnvWrapper)
        if isinstance(venv, VecTransposeImage):
            found.insert(0, venv)
        elif venv.observation_space != venv.venv.observation_space:
            raise ValueError(
                f"{type(venv).__name__} stands between VecNormalize and VecHistory, and changes observations: what SB3 "
                "stores are observations before normalisation, and those VecNormalize knows only as it sees them. Put "
                f"VecNormalize around it: VecHistory(VecNormalize({type(venv).__name__}(...)))."
            )
        venv = venv.venv
    return found


def _refuse_normalized_time(normalize: VecNormalize, space: HistorySpace) -> None:
    """Raise ValueError if the time of observations is normalised."""
    key = space.flattening.time_key
    if key is None or not normalize.norm_obs:
        return
    if isinstance(key, str):
        normalized = key in (normalize.norm_obs_keys or ())
    else:
        columns = len(space.observed.low)  # type: ignore[attr-defined]
        normalized = key not in [column % columns for column in getattr(normalize, "skip_columns", ())]
    if normalized:
        raise ValueError(f"The time, {space.arguments.time_key!r}, is normalised. {NORMALIZED_TIME}")
