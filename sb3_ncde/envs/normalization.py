"""Normalisation that leaves time and missing values alone."""

import copy
import pickle
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize, VecTransposeImage


class ObservedMeanStd(RunningMeanStd):
    """Running mean and variance of each column, over those of its values that are not NaN."""

    def __init__(self, epsilon: float = 1e-4, shape: tuple[int, ...] = ()) -> None:
        super().__init__(epsilon, shape)
        self.count = np.full(shape, epsilon)  # type: ignore[assignment]  # one for each column, not one for all

    @classmethod
    def of(cls, statistics: RunningMeanStd) -> "ObservedMeanStd":
        """Return a copy of statistics, which may be SB3's own: then its count is that of each column."""
        new = cls(shape=statistics.mean.shape)
        new.mean, new.var = statistics.mean.copy(), statistics.var.copy()
        new.count = np.broadcast_to(statistics.count, statistics.mean.shape).astype(float)  # type: ignore[assignment]
        return new

    def copy(self) -> "ObservedMeanStd":
        """Return a copy."""
        return ObservedMeanStd.of(self)

    def update(self, arr: npt.NDArray[Any]) -> None:
        """Take in a batch of values, (rows, ...); those that are NaN do not count.

        :raises ValueError: for an infinite value, and the statistics stay as they are
        """
        refuse_infinite(arr)
        observed = ~np.isnan(arr)
        count = observed.sum(axis=0)
        mean = np.where(observed, arr, 0.0).sum(axis=0) / np.maximum(count, 1)
        variance = np.square(np.where(observed, arr - mean, 0.0)).sum(axis=0) / np.maximum(count, 1)
        self.update_from_moments(mean, variance, count)


def refuse_infinite(values: npt.NDArray[Any]) -> None:
    """Raise ValueError if one of the values is infinite, and say where it is."""
    infinite = np.isinf(values)
    if infinite.any():
        index = tuple(map(int, np.argwhere(infinite)[0]))
        raise ValueError(
            f"The observation, of shape {values.shape}, is {values[index]} at {index}. Observations must be finite; "
            "where a sensor has no value, it is NaN (with policy_kwargs missing_values=True)."
        )


def normalized_space(space: spaces.Space[Any], normalize: VecNormalize) -> spaces.Space[Any]:
    """Return the space of a normalised observation: an image that is normalised is one of floats, and no image to SB3.

    VecNormalize writes this into the space of a Dict itself, which may be the one of an environment's class.

    :param space: of the environment; it is left as it is
    :param normalize: what normalises its observations
    """
    if not normalize.norm_obs:
        return space
    if not isinstance(space, spaces.Dict):
        return _floats(space, normalize.clip_obs) if is_image_space(space) else space
    shown = copy.copy(space)
    shown.spaces = dict(space.spaces)
    for key in normalize.norm_obs_keys or ():
        if key in shown.spaces and is_image_space(shown.spaces[key]):
            shown.spaces[key] = _floats(shown.spaces[key], normalize.clip_obs)
    return shown


def _floats(image: spaces.Space[Any], clip: float) -> spaces.Box:
    return spaces.Box(-clip, clip, image.shape, np.float32)


class VecNormalizeObserved(VecNormalize):
    """SB3's VecNormalize, without what must not be normalised, and with statistics of observed values only.

    Elapsed time that is normalised is negative half of the time, a single NaN makes all later statistics NaN, and of an
    image that is normalised SB3 makes no CNN. Here images and the named keys or columns pass as they are, NaN stays NaN
    and does not count, and an infinite value is an error (ValueError) rather than the end of the statistics. It is
    saved and kept in step with an evaluation environment's as SB3's own.

    :param venv: environments with Box or Dict observations
    :param skip: keys of a Dict observation, or one key, or columns of a Box, that pass as they are. In a Dict, images
        and keys that are no Box pass as well, unless ``norm_obs_keys`` names those to normalise
    :param kwargs: arguments of VecNormalize. An observation that is itself an image is normalised with
        ``norm_obs=True`` alone
    :raises ValueError: for a key or a column that does not exist
    """

    def __init__(self, venv: VecEnv, skip: Sequence[str | int] = (), **kwargs: Any) -> None:
        space = venv.observation_space
        self.skip_columns: list[int] = []
        keys: list[str] = []
        skip = [skip] if isinstance(skip, str) else skip
        if isinstance(space, spaces.Dict):
            keys = _keys_to_normalize(space, skip, kwargs.pop("norm_obs_keys", None))
            # Of images, SB3 would rewrite the space in place: that of the environment's class.
            kwargs["norm_obs_keys"] = [key for key in keys if not is_image_space(space.spaces[key])]
        elif skip:
            columns = space.shape[-1] if isinstance(space, spaces.Box) and space.shape else 0
            if not all(isinstance(column, (int, np.integer)) and -columns <= column < columns for column in skip):
                raise ValueError(f"skip={list(skip)}: the observation is a {space}, with columns 0 to {columns - 1}.")
            self.skip_columns = [int(column) for column in skip]
        if is_image_space(space):
            kwargs.setdefault("norm_obs", False)
        super().__init__(venv, **kwargs)
        if self.norm_obs and isinstance(space, spaces.Dict):
            self.norm_obs_keys = keys
            self.observation_space = normalized_space(space, self)
            self.obs_spaces = self.observation_space.spaces  # type: ignore[attr-defined]
            self.obs_rms = {key: ObservedMeanStd(shape=self.obs_spaces[key].shape or ()) for key in keys}
            _warn_of_images([key for key in keys if is_image_space(space.spaces[key])])
        elif self.norm_obs:
            self.obs_rms = ObservedMeanStd(shape=space.shape or ())  # type: ignore[assignment]

    @staticmethod
    def load(load_path: str, venv: VecEnv) -> "VecNormalizeObserved":
        """Load a saved normalisation; one that was saved by SB3's VecNormalize becomes a VecNormalizeObserved.

        :param load_path: the file
        :param venv: environments to normalise
        :raises ValueError: if the file is SB3's, and missing values have made its statistics NaN
        :raises TypeError: if the file holds something else
        """
        with open(load_path, "rb") as file:
            saved = pickle.load(file)
        if not isinstance(saved, VecNormalizeObserved):
            saved = _of_stock(saved, load_path)
        saved.set_venv(venv)
        return saved

    def normalize_obs(self, obs: npt.NDArray[Any] | dict[str, npt.NDArray[Any]]) -> Any:
        """Return observations normalised, with the statistics as they are.

        :param obs: of the environments. A Dict may lack keys that only the critic sees, as it does where the agent acts
            outside its simulator
        """
        if not (self.norm_obs and isinstance(obs, dict)):
            return super().normalize_obs(obs)
        # A name that is wrong is not for this to find: the policy knows which keys it needs.
        keys = [key for key in self.norm_obs_keys or () if key in obs]
        normalized = {key: self._normalize_obs(obs[key], self.obs_rms[key]).astype(np.float32) for key in keys}
        return {**copy.deepcopy(obs), **normalized}

    def unnormalize_obs(self, obs: npt.NDArray[Any] | dict[str, npt.NDArray[Any]]) -> Any:
        """Return observations as they were before :meth:`normalize_obs`, but for what was clipped."""
        if not (self.norm_obs and isinstance(obs, dict)):
            return super().unnormalize_obs(obs)
        keys = [key for key in self.norm_obs_keys or () if key in obs]
        return {**copy.deepcopy(obs), **{key: self._unnormalize_obs(obs[key], self.obs_rms[key]) for key in keys}}

    def _normalize_obs(self, obs: npt.NDArray[Any], obs_rms: RunningMeanStd) -> npt.NDArray[Any]:
        refuse_infinite(obs)  # which would be clipped where statistics are not updated
        normalized = super()._normalize_obs(obs, obs_rms)
        normalized[..., self.skip_columns] = obs[..., self.skip_columns]
        return normalized

    def _unnormalize_obs(self, obs: npt.NDArray[Any], obs_rms: RunningMeanStd) -> npt.NDArray[Any]:
        unnormalized = super()._unnormalize_obs(obs, obs_rms)
        unnormalized[..., self.skip_columns] = obs[..., self.skip_columns]
        return unnormalized


def _keys_to_normalize(space: spaces.Dict, skip: Sequence[str | int], named: Iterable[str] | None) -> list[str]:
    """Return the keys that are normalised: those that are named, or every Box that is no image; but none to skip."""
    unknown = [key for key in (*skip, *(named or ())) if key not in space.spaces]
    if unknown:
        raise ValueError(
            f"skip={list(skip)}, norm_obs_keys={named}: the observation has no {unknown}, but {sorted(space.spaces)}."
        )
    if named is None:
        boxes = [key for key, subspace in space.spaces.items() if isinstance(subspace, spaces.Box)]
        named = [key for key in boxes if not is_image_space(space.spaces[key])]
    return [key for key in named if key not in skip]


def _warn_of_images(keys: list[str]) -> None:
    if keys:
        warnings.warn(
            f"norm_obs_keys names images: {keys}. They become floats, which SB3 takes for no images: their pixels go "
            "to the policy one by one, without a CNN, unless its policy_kwargs have normalize_images=False (which does "
            "nothing with VecHistory). Leave them out of norm_obs_keys, and they pass as they are.",
            stacklevel=3,
        )


def _of_stock(stock: object, path: str) -> VecNormalizeObserved:
    """Return what was saved by SB3's VecNormalize as a VecNormalizeObserved, with the same statistics."""
    if type(stock) is not VecNormalize:
        raise TypeError(
            f"{path} holds a {type(stock).__name__}, but expected what VecNormalizeObserved.save, or that of SB3's "
            "VecNormalize, has written."
        )
    statistics = getattr(stock, "obs_rms", {}) if stock.norm_obs else {}
    named = statistics if isinstance(statistics, dict) else {"": statistics}
    for key, rms in named.items():
        unusable = sorted(set(np.argwhere(~np.isfinite(np.atleast_1d(rms.mean + rms.var)))[:, -1].tolist()))
        if unusable:
            raise ValueError(
                f"{path} was saved by SB3's VecNormalize, and its statistics of{key and f' {key!r},'} columns "
                f"{unusable} are NaN: a missing value makes them so for good, and with them all that the "
                "agent saw of these columns. They cannot be mended. Train again in "
                "sb3_ncde.normalize.VecNormalizeObserved, whose statistics are of the observed values only."
            )
    observed = {key: ObservedMeanStd.of(rms) for key, rms in named.items()}
    converted = VecNormalizeObserved.__new__(VecNormalizeObserved)
    converted.__dict__ |= stock.__dict__ | {"skip_columns": []}
    if observed:
        converted.obs_rms = observed if isinstance(statistics, dict) else observed[""]  # type: ignore[assignment]
    return converted


def transposes_above(venv: VecEnv, normalize: VecNormalize) -> list[VecTransposeImage]:
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


def refuse_missing_statistics(model: BaseAlgorithm, normalize: VecNormalize | None) -> None:
    """Raise ValueError for a model that was trained in a VecNormalize and would act without one.

    Of off-policy algorithms it is not known: SB3 has what this looks at for them in any case.
    """
    # SB3 keeps these where the environments of ``learn`` are wrapped in VecNormalize, and saves them with the model.
    on_policy = isinstance(model, OnPolicyAlgorithm)
    if normalize is None and on_policy and model._last_original_obs is not None:
        raise ValueError(
            "The agent was trained in environments wrapped in VecNormalize, whose statistics it needs, but there are "
            "none: pass vec_normalize=VecNormalize.load(path, env), with the file that was saved beside the model. (If "
            "observations were not normalised there, norm_obs=False, it leaves them as they are.)"
        )
