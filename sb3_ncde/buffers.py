"""HistoryReplayBuffer: stores each observation once, and rebuilds histories when it samples."""

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common import buffers as sb3_buffers
from stable_baselines3.common.buffers import BaseBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_ncde.acting.observation_history import continued, follows
from sb3_ncde.history.records import Records
from sb3_ncde.history.space import HistorySpace
from sb3_ncde.history.window_rule import Array, Integers

_NONE = -1
_FIRST_ENDS = 64


class HistoryReplayBuffer(NStepReplayBuffer):
    """Replay buffer for the histories of :class:`sb3_ncde.VecHistory`, as ``replay_buffer_class`` of any algorithm.

    A history shares all but one of its H observations with the next; SB3's own buffer stores each of them 2 H times.
    Here each is stored once, with its time and its place in the episode, in float32 (uint8 as it is); a history is put
    together from the ring when it is sampled, and is the one that was acted on, bit for bit. Observations are stored
    before normalisation, and normalised by the statistics of the moment, as in SB3's.

    The last observation of an episode, and of any sequence that does not go on (``env.reset()`` between two calls of
    ``learn``), is kept apart. Histories that reach across the ring's seam are not sampled.

    :param buffer_size: transitions
    :param observation_space: of VecHistory
    :param action_space: of the environments
    :param device: of the samples
    :param n_envs: N, environments
    :param optimize_memory_usage: refused
    :param handle_timeout_termination: whether targets bootstrap past the end of an episode by a time limit, as in SB3's
    :param n_steps: of n-step returns, as in SB3's ``NStepReplayBuffer``
    :param gamma: their discount factor, which has to be the algorithm's
    :param kwargs: refused
    :raises TypeError: for another observation space, arguments of HerReplayBuffer, or n-step returns without ``gamma``
    :raises ValueError: for ``optimize_memory_usage``, or a ring that holds no whole history
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: th.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
        n_steps: int = 1,
        gamma: float | None = None,
        **kwargs: Any,
    ) -> None:
        _refuse(observation_space, optimize_memory_usage, n_steps, gamma, kwargs)
        assert isinstance(observation_space, HistorySpace)
        BaseBuffer.__init__(self, buffer_size, observation_space, action_space, device, n_envs=n_envs)
        self._space, self.layout = observation_space, observation_space.layout
        self.buffer_size = max(buffer_size // n_envs, 1)
        # The RL Zoo's `enjoy` loads agents with a buffer of 1, from which nothing is sampled.
        if buffer_size > 1 and self.buffer_size <= self.layout.rule.history_length:
            raise ValueError(
                f"buffer_size={buffer_size} for {n_envs} environments is {self.buffer_size} steps of each, but a whole "
                f"history and the observation after it take {self.layout.rule.history_length + 1}: take more."
            )
        self.optimize_memory_usage = False
        self.handle_timeout_termination = handle_timeout_termination
        self.n_steps, self.gamma = n_steps, 0.0 if gamma is None else gamma
        ring = (self.buffer_size, n_envs)
        self.actions = np.zeros((*ring, self.action_dim), dtype=self._maybe_cast_dtype(action_space.dtype))
        self.rewards, self.dones, self.timeouts = (np.zeros(ring, np.float32) for _ in range(3))
        # What SB3 indexes by rows and environments.
        self.observations = _Rebuilt(self, following=False)  # type: ignore[assignment]
        self.next_observations = _Rebuilt(self, following=True)  # type: ignore[assignment]
        self._records = Records(ring, observation_space)
        self._seen = np.zeros(ring, np.int32)  # observations of the episode, with the row's
        self._end = np.full(ring, _NONE, np.int32)  # where the next observation is kept apart
        self._reach = np.zeros(self.buffer_size, np.int32)  # rows that the longest history of each row takes
        self._forget()
        psutil = getattr(sb3_buffers, "psutil", None)  # SB3 does without it where it is not installed
        if psutil is not None and self.nbytes > psutil.virtual_memory().available:
            warnings.warn(
                f"Once full, the replay buffer will not fit into the memory that is free ({self.memory_report()}): "
                "take a smaller buffer_size.",
                stacklevel=2,
            )

    def _forget(self) -> None:
        self._ends = Records((_FIRST_ENDS,), self._space)
        self._free = list(range(_FIRST_ENDS))
        self._end[:] = _NONE
        self._next = np.zeros((self.n_envs, self._records.width), np.float32)  # the observation after the newest row
        self._next_seen = np.zeros(self.n_envs, np.int64)  # 0: the newest row is the last of its sequence
        self._in_a_row = np.zeros(self.n_envs, np.int64)  # rows of each sequence that are stored

    def reset(self) -> None:
        """Forget all transitions."""
        super().reset()
        self._forget()

    def add(
        self,
        obs: Array,
        next_obs: Array,
        action: npt.NDArray[Any],
        reward: npt.NDArray[Any],
        done: npt.NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        """Store a step of each environment.

        :param obs: histories before normalisation, (N, P)
        :param next_obs: the histories after the step, (N, P); at an episode's end the terminal ones
        :param action: (N, ...)
        :param reward: (N,)
        :param done: (N,)
        :param infos: of each environment
        :raises ValueError: for a reward that is not finite, or for other histories than the buffer is made for
        """
        if obs.shape != (self.n_envs, self.layout.packed_size):
            raise ValueError(
                f"The buffer stores {self.n_envs} histories of {self.layout.packed_size} numbers a step, one of each "
                f"environment, but was given {' x '.join(map(str, obs.shape))}. A buffer that was saved goes on with "
                "as many environments, and the same arguments of VecHistory."
            )
        if not np.isfinite(reward).all():
            wrong = int(np.flatnonzero(~np.isfinite(reward))[0])
            raise ValueError(
                f"The reward of environment {wrong} of {self.n_envs} is {reward[wrong]:g}. What is learned of it would "
                "turn all weights to NaN: look into the environment's reward."
            )
        if done.any():
            # SB3 undoes the normalisation of a terminal observation by the statistics of the moment. Values that are
            # held, and summaries, were normalised by earlier ones.
            ends = done.astype(bool)[:, None]
            next_obs = np.where(ends, continued(obs, next_obs, self.layout), next_obs)
        row = self.pos
        seen, record = obs[:, 0].astype(np.int64), self._records.of(obs)
        goes_on = (seen == self._next_seen) & (record == self._next).all(axis=1)
        for env in np.flatnonzero((self._next_seen > 0) & ~goes_on):
            self._keep_apart(row - 1, int(env), self._next[env])
            self.timeouts[row - 1, env] = True  # for n-step returns: no end, but nothing after it
        self._in_a_row = np.where(goes_on, self._in_a_row + 1, 1)
        for env in np.flatnonzero(self._end[row] != _NONE):
            self._free.append(int(self._end[row, env]))
        self._end[row] = _NONE
        self._records.put(row, record)
        self._seen[row] = seen
        points = self.layout.rule.points(seen)
        self._reach[row] = points.max() if (points <= self._in_a_row).all() else 2 * self.buffer_size
        self.actions[row] = action.reshape(self.n_envs, self.action_dim)
        self.rewards[row], self.dones[row] = reward, done
        self.timeouts[row] = False
        if self.handle_timeout_termination:
            self.timeouts[row] = [info.get("TimeLimit.truncated", False) for info in infos]
        self._next, self._next_seen = self._records.of(next_obs), next_obs[:, 0].astype(np.int64)
        # A terminal observation may not have been normalised as the others have: there the count alone is compared.
        counted = self._next_seen == self.layout.rule.wrap(seen + 1)
        lost = ~np.where(done.astype(bool), counted, follows(obs, next_obs, self.layout))
        if lost.any():  # the environments were reset without the algorithm knowing, by an evaluation perhaps
            self._reach[row] = 2 * self.buffer_size
            self.timeouts[row - 1, lost & (self._in_a_row > 1)] = True
            self._next_seen[lost] = 0
        for env in np.flatnonzero(done):
            self._keep_apart(row, int(env), self._next[env])
            self._next_seen[env] = 0
        self.pos += 1
        if self.pos == self.buffer_size:
            self.full, self.pos = True, 0

    def _keep_apart(self, row: int, env: int, record: Array) -> None:
        """Keep the observation after a row apart, as the row after it is of something else."""
        if not self._free:
            self._free = list(range(self._ends.rows, 2 * self._ends.rows))
            self._ends.double()
        self._end[row, env] = self._free.pop()
        self._ends.put(self._end[row, env], record)

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """Return transitions, each with the whole histories before and after it.

        :param batch_size: transitions
        :param env: the VecNormalize of the environments, by which they are normalised
        :raises RuntimeError: if none is stored whose history is whole
        """
        rows = np.random.randint(0, self.size(), size=batch_size)  # noqa: NPY002  (the generator that SB3 seeds)
        for _ in range(1000):
            age = (rows - self.pos) % self.buffer_size if self.full else rows
            cut = self._reach[rows] > age + 1
            if not cut.any():
                return self._get_samples(rows, env=env)
            rows[cut] = np.random.randint(0, self.size(), size=np.count_nonzero(cut))  # noqa: NPY002
        raise RuntimeError(
            f"Of {self.size()} stored steps hardly one has its whole history in the buffer. It was filled in the "
            "middle of episodes: let it begin with a reset of the environments, or store more steps before learning."
        )

    def _get_samples(self, batch_inds: npt.NDArray[Any], env: VecNormalize | None = None) -> ReplayBufferSamples:
        kind = ReplayBuffer if self.n_steps == 1 else NStepReplayBuffer
        return kind._get_samples(self, batch_inds, env)

    def rebuild(self, rows: Integers, envs: Integers, following: bool = False) -> Array:
        """Return the histories of some rows, (B, P), as they were acted on, before normalisation.

        :param rows: of the ring, (B,)
        :param envs: environment of each, (B,)
        :param following: whether to return the histories after the step in their place
        """
        layout, records = self.layout, self._records
        seen = self._seen[rows, envs].astype(np.int64)
        if following:
            seen = layout.rule.wrap(seen + 1)
        points = layout.rule.points(seen)
        longest = points.max()
        back = np.arange(longest - 1, -1, -1)  # steps from each observation of a window to its newest
        place = (rows[:, None] + following - back) % self.buffer_size
        window = records.get((place, envs[:, None]))  # (B, longest, width)
        if following:
            newest = rows == (self.pos - 1) % self.buffer_size
            window[newest, -1] = self._next[envs[newest]]
            ends = self._end[rows, envs]
            apart = ends != _NONE
            window[apart, -1] = self._ends.get((ends[apart],))
        np.copyto(window, 0.0, where=(back >= points[:, None])[..., None])
        packed = np.zeros((len(rows), layout.packed_size), np.float32)
        packed[:, 0] = seen
        if layout.timestamps:
            packed[:, 1] = window[:, -1, -1]
        slots = packed[:, 2:].reshape(len(rows), -1, layout.slot_size)  # a view
        slots[:, -longest:] = window[..., : layout.slot_size]
        return packed

    @property
    def nbytes(self) -> int:
        """Bytes of all that is stored, once the buffer is full; ends of episodes as many as there are."""
        arrays = (self.actions, self.rewards, self.dones, self.timeouts, self._seen, self._end, self._reach)
        return self._records.nbytes + self._ends.nbytes + sum(array.nbytes for array in arrays)

    def memory_report(self) -> str:
        """Return in words how much memory the buffer takes, and would take as a stock buffer of stacked frames."""
        n_rows, layout = self.buffer_size * self.n_envs, self.layout
        parts: list[Any] = [part.space for part in self._space.flattening.parts]
        item = sum(int(np.prod(part.shape or ())) * part.dtype.itemsize for part in parts)
        stacked = 2 * layout.rule.history_length * item + 12 + self.actions.itemsize * self.action_dim
        return (
            f"{n_rows:,} transitions, histories of {layout.rule.history_length} observations of {layout.features_dim} "
            f"numbers: {self.nbytes / 1e9:.3f} GB (stacked frames in a ReplayBuffer of SB3: "
            f"{n_rows * stacked / 1e9:.3f} GB)"
        )


class _Rebuilt:
    """Stands where SB3 has an array of observations: what is asked of it by rows and environments is rebuilt."""

    def __init__(self, buffer: HistoryReplayBuffer, following: bool) -> None:
        self._buffer = buffer
        self._following = following

    def __getitem__(self, place: Any) -> Array:
        rows, envs = place[:2]
        return self._buffer.rebuild(rows, envs, self._following)


def _refuse(
    space: spaces.Space[Any], optimize_memory_usage: bool, n_steps: int, gamma: float | None, others: dict[str, Any]
) -> None:
    """Raise for what such a buffer cannot do."""
    if not isinstance(space, HistorySpace):
        raise TypeError(
            f"HistoryReplayBuffer stores histories, but the observation space is {space}. Wrap the environments, as "
            "the last wrapper: VecHistory(venv, history_length=...)."
        )
    if optimize_memory_usage:
        raise ValueError(
            "optimize_memory_usage=True: HistoryReplayBuffer stores each observation once already. Leave it out."
        )
    if others:
        her = {"n_sampled_goal", "goal_selection_strategy", "copy_info_dict", "env"} & others.keys()
        reason = (
            "Hindsight experience replay is not supported: a history has the goals of all its observations in it."
            if her
            else "It takes handle_timeout_termination, n_steps and gamma."
        )
        raise TypeError(f"HistoryReplayBuffer got an unexpected argument {sorted(others)[0]!r}. {reason}")
    if n_steps > 1 and gamma is None:
        raise TypeError(
            f"n_steps={n_steps} without gamma: say the algorithm's, replay_buffer_kwargs=dict(n_steps={n_steps}, "
            "gamma=...), as returns over several steps are discounted in the buffer."
        )
