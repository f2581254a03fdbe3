"""The spaces of an agent as plain values: what it is given, and what it does."""

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize, VecTransposeImage

from sb3_ncde.deploy.heads import Action
from sb3_ncde.deploy.layers import CannotExportError
from sb3_ncde.deploy.observation import SINGLE, Input
from sb3_ncde.envs.spaces import choices
from sb3_ncde.history.space import HistorySpace
from sb3_ncde.history.window_rule import Array
from sb3_ncde.vec_history import VecHistory


def raw_space(seen: spaces.Space[Any], env: VecEnv | None) -> spaces.Space[Any]:
    """Return the space of raw observations: of images, channels may come last there.

    :param seen: the space of what the agent is given by SB3
    :param env: the environments of the training, or their VecNormalize; None: images are as SB3 has them
    :raises CannotExportError: for a wrapper that changes observations, and is none of SB3's two or VecHistory
    """
    while isinstance(env, VecEnvWrapper):
        inside = env.venv.observation_space
        if isinstance(env, VecTransposeImage | VecNormalize) and not isinstance(inside, HistorySpace):
            seen = inside
        elif env.observation_space != inside and not isinstance(env, VecHistory):
            raise CannotExportError(
                f"{type(env).__name__} changes observations, and an exported agent does not: it is given what the "
                "environments themselves show. Take it away (NCDEPolicy and VecHistory need no stacked frames), or "
                "make it a wrapper of single environments, which the robot has as well."
            )
        env = env.venv
    return seen


def named(space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
    """Return the parts of a space by name."""
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {SINGLE: space}


def input_of(
    name: str, raw: spaces.Space[Any], seen: spaces.Space[Any], normalize: VecNormalize | None, pixels: bool, own: bool
) -> Input:
    """Return a part of an observation as plain values.

    :param name: of the part
    :param raw: its space as the environment gives it
    :param seen: its space as SB3 gives it to the agent
    :param normalize: of the training
    :param pixels: whether those of images are divided by 255
    :param own: whether choices begin at the space's start, as in VecHistory; SB3 has them begin at 0
    """
    if isinstance(raw, spaces.Discrete):
        options, starts, kind = [int(raw.n)], [int(raw.start) if own else 0], "discrete"
    elif isinstance(raw, spaces.MultiDiscrete):
        options, starts, kind = (
            raw.nvec.tolist(),
            (raw.start.tolist() if own else [0] * len(raw.nvec)),
            "multi_discrete",
        )
    else:
        options, starts, kind = [], [], "box"
    shape, statistics = list(raw.shape or ()), _statistics(name, normalize)
    plain = Input(
        name=name,
        kind=kind,
        shape=shape,
        dtype=np.dtype(raw.dtype).name,
        options=options,
        starts=starts,
        channels_last=shape != list(seen.shape or ()),
        divisor=255.0 if pixels and is_image_space(seen) else 1.0,
    )
    if normalize is None or statistics is None:
        return plain
    if list(statistics.mean.shape) != shape:
        raise CannotExportError(
            f"vec_normalize has statistics of the shape {statistics.mean.shape}, but {name!r} has the shape "
            f"{tuple(shape)}: it is the normalisation of another training."
        )
    columns = shape[-1] if shape else 1
    return plain._replace(
        mean=np.array(statistics.mean, np.float64),
        deviation=np.sqrt(np.array(statistics.var, np.float64) + normalize.epsilon),
        clip=float(normalize.clip_obs),
        skipped=[column % columns for column in getattr(normalize, "skip_columns", ())],
    )


def _statistics(name: str, normalize: VecNormalize | None) -> Any:
    """Return mean and variance of a part, or None where it is not normalised."""
    if normalize is None or not normalize.norm_obs:
        return None
    return normalize.obs_rms.get(name) if isinstance(normalize.obs_rms, dict) else normalize.obs_rms


def action_of(space: spaces.Space[Any], squashed: bool, unscaled: bool, masked: bool) -> Action:
    """Return what is made of an actor's output, for an action space.

    :param squashed: whether its tanh is the action
    :param unscaled: whether -1 and 1 stand for the bounds
    :param masked: whether there is an action mask
    """
    shape, dtype = list(space.shape or ()), np.dtype(space.dtype).name
    if isinstance(space, spaces.Box):
        return Action("box", shape, dtype, [], _bound(space.low), _bound(space.high), squashed, unscaled)
    if isinstance(space, spaces.MultiBinary):
        return Action("multi_binary", shape, dtype, choices(space) if masked else [])
    return Action("discrete", shape, dtype, choices(space))


def _bound(values: Any) -> Array:
    return np.array(values, np.float32)
