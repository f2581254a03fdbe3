"""VecHistory: environments whose observation is the history of observations, for any algorithm of SB3."""

from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import (
    VecEnv,
    VecEnvWrapper,
    VecNormalize,
    is_vecenv_wrapped,
    unwrap_vec_normalize,
)
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from sb3_ncde.acting.observation_history import Histories, append
from sb3_ncde.envs.normalization import transposes_above
from sb3_ncde.history.arguments import HistoryArguments
from sb3_ncde.history.conversion import converted, refuse_normalized_time
from sb3_ncde.history.guard import Guard
from sb3_ncde.history.observation_history import State
from sb3_ncde.history.space import HistorySpace
from sb3_ncde.history.time_source import warn_of_time_among_features
from sb3_ncde.history.window_rule import Array

Flat = tuple[Array, Array]
"""Features (N, D) and time (N,) of observations; the time is 1, a nominal step, where none is observed."""


class VecHistory(VecEnvWrapper):
    """Environments whose observation is the packed history of their observations, (P,) in float32.

    What the history holds is what :class:`sb3_ncde.NCDEPolicy` would hold of the same observations, by the same code.
    It is read by :class:`sb3_ncde.NCDEExtractor`, which makes it the memory of any algorithm. The terminal observation
    of an episode is the history that ends with it.

    It is the outermost wrapper of observations: a VecNormalize belongs inside, as it would normalise counts and times.
    Where there is one, VecHistory is an instance of VecNormalize itself, so that SB3 finds its statistics,
    ``get_original_obs``, ``normalize_obs`` and ``save`` on it; observations are histories in all of these.

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
        venv = BaseAlgorithm._wrap_env(venv)  # transposes images, which SB3 cannot do to histories
        space = HistorySpace(venv.observation_space, HistoryArguments(**arguments))
        if space.arguments.time_key is None:
            warn_of_time_among_features(venv.observation_space)
        VecEnvWrapper.__init__(self, venv, observation_space=space)
        self._layout = space.layout
        self._of_state = space.arguments.make_history(space.flattening.features_dim)
        self._guard = Guard(self._of_state, space.arguments)
        self._histories = _empty(self.num_envs, space)

    def reset(self) -> Array:
        """Reset all environments.

        :return: histories of one observation each, (N, P)
        """
        self._take_in(self.venv.reset(), np.ones(self.num_envs, bool))
        return self._packed()

    def step_wait(self) -> VecEnvStepReturn:
        """Wait for a step that has been asked for.

        :return: histories (N, P), rewards, dones (N,), and infos, whose terminal observations are histories (P,)
        """
        observations, rewards, dones, infos = self.venv.step_wait()
        dones = dones.astype(bool, copy=False)  # of some environments they are numbers
        before = self._histories
        self._take_in(observations, dones)
        lasts = {int(env): infos[env].get("terminal_observation") for env in np.flatnonzero(dones)}
        lasts = {env: last for env, last in lasts.items() if last is not None}
        if lasts:
            packed = self._terminal(before, observations, lasts, dones)
            for env in lasts:
                infos[env]["terminal_observation"] = packed[env]
        return self._packed(), rewards, dones, infos

    def _packed(self) -> Array:
        packed: Array = self._histories.packed.copy()
        return packed

    def _take_in(self, observations: Any, starts: npt.NDArray[np.bool_]) -> None:
        """Append an observation to the history of each environment, and look whether it can be meant."""
        flat = self._checked(self._histories, observations, starts)
        self._histories = self._appended(self._histories, flat, starts)
        if self._guard.watches:
            elapsed = th.from_numpy(self._histories.packed[:, self._layout.newest.stop - 1])
            self._guard.watch(th.from_numpy(flat[0]), _as_tensor(starts), elapsed)

    def _terminal(self, before: Histories, now: Any, lasts: dict[int, Any], dones: npt.NDArray[np.bool_]) -> Array:
        """Return histories, (N, P), which of some environments end with the last observation of an episode.

        :param before: the histories that they are appended to
        :param now: the observations of all environments, of those the first ones of their next episodes
        :param lasts: the last ones, by environment
        :param dones: which environments' episodes have ended
        """
        everywhere: Any = {k: np.array(value) for k, value in now.items()} if isinstance(now, dict) else np.array(now)
        starts = dones.copy()
        for env, last in lasts.items():
            starts[env] = False
            if isinstance(last, dict):
                for key, value in last.items():
                    everywhere[key][env] = value
            else:
                everywhere[env] = last
        packed: Array = self._appended(before, self._checked(before, everywhere, starts), starts).packed
        return packed

    def _appended(self, histories: Histories, flat: Flat, starts: npt.NDArray[np.bool_]) -> Histories:
        return append(histories, *flat, starts, self._layout)

    def _flat(self, observations: Any) -> Flat:
        """Return features (N, D) and time (N,) of observations."""
        features, time = self.observation_space.flattening.flatten(observations)
        return features, np.ones(len(features), np.float32) if time is None else time

    def _checked(self, histories: Histories, observations: Any, starts: npt.NDArray[np.bool_]) -> Flat:
        """Return features and time of observations; raise ValueError for what cannot be appended to histories."""
        features, time = self._flat(observations)
        with np.errstate(all="ignore"):
            if not self._guard.timed and np.isfinite(np.add.reduce(features, axis=None)):
                return features, time  # a sum is finite only where all of its numbers are
        rows = th.from_numpy(np.concatenate((features, time[:, None]), axis=1))
        if isinstance(observations, dict):
            named: Any = {key: th.from_numpy(np.asarray(value)) for key, value in observations.items()}
        else:
            named = th.from_numpy(np.asarray(observations))
        self._guard.check(named, rows, _as_tensor(starts), self._state(histories))
        return features, time

    def _state(self, histories: Histories) -> State:
        """Return histories as a policy's recurrent state has them."""
        half = self._of_state.size
        packed = np.zeros((1, self.num_envs, 2 * half), np.float32)
        packed[0, :, : self._layout.packed_size] = histories.packed
        return th.from_numpy(packed[..., :half]), th.from_numpy(packed[..., half:])


def _as_tensor(starts: npt.NDArray[np.bool_]) -> th.Tensor:
    return th.from_numpy(starts.astype(np.float32))


def _empty(n_envs: int, space: HistorySpace) -> Histories:
    return Histories(np.zeros((n_envs, *space.shape), np.float32), np.zeros(n_envs, np.int64), empty=True, most=0)


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

    def __init__(self, venv: VecEnv, **arguments: Any) -> None:
        super().__init__(venv, **arguments)
        normalize = unwrap_vec_normalize(self.venv)
        assert normalize is not None
        self.normalize = normalize
        self._transposes = transposes_above(self.venv, normalize)
        names = normalize.norm_obs_keys if isinstance(self.observation_space.observed, spaces.Dict) else None
        self._names = None if names is None else frozenset(names)
        refuse_normalized_time(normalize, self.observation_space)
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
        self._original = self._appended(self._original, self._flat(observations), starts)

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

    def _converted(self, packed: Any, convert: Any) -> Array:
        rows: Array = np.array(packed)
        if rows.shape[-1:] != self.observation_space.shape:
            got = "a Dict" if isinstance(packed, dict) else f"the shape {rows.shape}"
            raise ValueError(
                f"VecHistory normalises histories, of {self.observation_space.shape[0]} numbers, but got {got}. An "
                "observation as it comes from an environment is normalised by env.normalize.normalize_obs(observation)."
            )
        if not self.norm_obs or (self._names is not None and not self._names):
            return rows
        return converted(rows, self.observation_space, self._names, convert)


for _name in (
    "training",
    "norm_obs",
    "norm_obs_keys",
    "norm_reward",
    "obs_rms",
    "ret_rms",
    "returns",
    "clip_obs",
    "clip_reward",
    "gamma",
    "epsilon",
    "old_reward",
):
    setattr(_VecHistoryOfNormalized, _name, _of_inner(_name))


def refuse_normalized_histories(env: VecEnv) -> None:
    """Raise ValueError for environments whose histories a VecNormalize around VecHistory normalises."""
    if not is_vecenv_wrapped(env, VecHistory):
        return
    while isinstance(env, VecEnvWrapper) and not isinstance(env, VecHistory):
        if isinstance(env, VecNormalize) and env.norm_obs:
            raise ValueError(
                "VecNormalize is wrapped around VecHistory, whose counts and times are not to be normalised: put it "
                "inside, VecHistory(VecNormalize(venv)), or leave observations alone, norm_obs=False. In an entry of "
                "the RL Zoo leave out normalize."
            )
        env = env.venv


def normalize_inside(normalize: VecNormalize | None) -> Any:
    """Return the VecNormalize of single observations, where SB3 has found one in environments; None: there is none."""
    if isinstance(normalize, VecHistory):
        return normalize.normalize
    of_rewards = normalize is not None and isinstance(normalize.observation_space, HistorySpace)  # around VecHistory
    return None if of_rewards else normalize
