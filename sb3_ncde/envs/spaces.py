"""Spaces: of observations that sensors add to, or leave values out of, and the choices of an action."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

Floats = npt.NDArray[np.floating[Any]]


class BoxWithMissing(spaces.Box):
    """A Box whose values may be NaN: not observed."""

    def contains(self, x: Any) -> bool:
        """Return whether all that is observed lies in the Box."""
        if np.shape(x) != self.shape:
            return False
        return super().contains(np.where(np.isnan(x), np.clip(0, self.low, self.high), x).astype(self.dtype))


def vector_space(space: spaces.Space[Any], key: str | None = None) -> spaces.Box:
    """Return the space, or that of a key if it is a Dict, and raise TypeError unless it is a Box of one dimension."""
    named = space.spaces.get(key) if key is not None and isinstance(space, spaces.Dict) else space
    if not isinstance(named, spaces.Box) or len(named.shape) != 1:
        where = f" as {key!r} of {space}" if named is not space else ""
        raise TypeError(f"Expected a Box observation of one dimension, but got {named}{where}.")
    return named


def with_more(space: spaces.Space[Any], added: dict[str, tuple[int, ...]], as_dict: bool) -> spaces.Space[Any]:
    """Return the space of :func:`join`, with Boxes of values from 0 added."""
    if not as_dict:
        box = vector_space(space)
        n = sum(shape[0] for shape in added.values())
        low, high = np.append(box.low, np.zeros(n)), np.append(box.high, np.full(n, np.inf))
        return type(box)(low.astype(np.float32), high.astype(np.float32))  # which may have missing values
    subspaces: dict[str, spaces.Space[Any]] = (
        dict(space.spaces) if isinstance(space, spaces.Dict) else {"observation": vector_space(space)}
    )
    for name, shape in added.items():
        if name in subspaces:
            raise ValueError(
                f"The observation has a key {name!r} already: of two wrappers that add it, leave out one, or let only "
                "the outer one hold values."
            )
        subspaces[name] = spaces.Box(0.0, np.inf, shape, np.float32)
    return spaces.Dict(subspaces)


def join(observation: Any, added: dict[str, Floats], as_dict: bool) -> Any:
    """Return an observation with more keys of a Dict, or more columns of a Box."""
    if not as_dict:
        return np.concatenate((np.asarray(observation, np.float32), *added.values()))
    return {**(observation if isinstance(observation, dict) else {"observation": observation}), **added}


def without_keys(space: spaces.Space[Any], keys: Sequence[str]) -> spaces.Space[Any]:
    """Return a Dict space without some keys, and any other as it is."""
    if not keys or not isinstance(space, spaces.Dict):
        return space
    return spaces.Dict({name: subspace for name, subspace in space.spaces.items() if name not in keys})


def choices(action_space: spaces.Space[Any]) -> list[int]:
    """Return the number of options of each choice that an action makes.

    :raises TypeError: if the actions are not discrete
    """
    if isinstance(action_space, spaces.Discrete):
        return [int(action_space.n)]
    if isinstance(action_space, spaces.MultiDiscrete) and action_space.nvec.ndim == 1:
        return [int(n) for n in action_space.nvec.flatten()]
    if isinstance(action_space, spaces.MultiBinary):
        return [2] * int(np.prod(action_space.shape))
    raise TypeError(
        f"Only Discrete, MultiDiscrete (of one dimension) and MultiBinary actions can be masked, not {action_space}."
    )
