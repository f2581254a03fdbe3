"""What only shows over many observations, and may be meant: each is warned of once, and training goes on."""

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from sb3_ncde.history.clock_watch import LEAST_ROWS, LEAST_STEPS
from sb3_ncde.history.learned_range import LearnedRange
from sb3_ncde.history.window_rule import Array


class FailureWatch:
    """Looks for features that are missing in all environments for long.

    The statistics of SB3's VecNormalize become NaN with the first NaN, and with them every later value of the feature.
    To the policy, which cannot see its environment, this looks like a sensor that has failed everywhere at once.
    """

    def __init__(self) -> None:
        self._missing = np.zeros(1, np.int64)
        self._calls = np.zeros(1, np.int64)
        self._warned = False

    def check(self, features: Array) -> None:
        """Take in the features of a step of the rollout, (N, D); warn once of one that is missing for long."""
        if self._warned:
            return
        failed = np.isnan(features).all(axis=0)
        self._missing = (self._missing + len(features)) * failed
        self._calls = (self._calls + 1) * failed
        silent = (self._missing >= LEAST_ROWS) & (self._calls >= LEAST_STEPS)
        if silent.any():
            self._warned = True
            index = int(silent.nonzero()[0][0])
            warnings.warn(
                f"Feature {index} has been NaN in {int(self._missing[index])} observations in a row, in all of "
                f"{len(features)} environments. If the sensor is meant to be silent for so long, all is well. If the "
                "environments are wrapped in SB3's VecNormalize, one NaN has made its statistics NaN for ever: use "
                "sb3_ncde.normalize.VecNormalizeObserved in its place.",
                stacklevel=4,
            )


class MemoryWatch:
    """Looks for an agent that is asked again and again as if nothing had been observed before.

    :param policy: name of its class
    """

    def __init__(self, policy: str) -> None:
        self._policy = policy
        self._calls = 0
        self._warned = False

    def check(self, state: tuple[npt.NDArray[Any], ...] | None, episode_start: npt.NDArray[Any] | None) -> None:
        """Take in a call of ``predict`` by the state and the episode starts that it was given; warn once."""
        starts = episode_start is not None and bool(np.asarray(episode_start).all())
        forgets = state is not None and bool(np.any(state[0])) if starts else state is None
        self._calls = self._calls + 1 if forgets else 0
        if self._calls < 3 or self._warned:
            return
        self._warned = True
        missed = "with episode_start true each time" if starts else "without a state"
        warnings.warn(
            f"predict() is called again and again {missed}, so {self._policy} acts without memory. Pass the "
            "state that the last call returned, and whether the observation is the first of its episode: "
            "action, state = model.predict(obs, state, episode_start). (If episodes are of one step, all is well.)",
            stacklevel=4,
        )


class RangeWatch:
    """Looks for values far outside of what was learned from; not among a learned extractor's features."""

    def __init__(self) -> None:
        self._warned = False

    def check(self, learned: LearnedRange, features: th.Tensor, extractor: BaseFeaturesExtractor) -> None:
        """Take in the features of a call of ``predict``, (N, D); warn once."""
        rows = features.numpy(force=True)
        if self._warned or learned.holds(rows) or any(True for _ in extractor.parameters()):
            return
        outside = learned.far_outside(rows)
        if outside.any():
            self._warned = True
            learned.warn(rows, outside)


def recommend_cpu(device: th.device, extractor: BaseFeaturesExtractor) -> None:
    """Warn of a GPU, unless there is a CNN to run on it: SB3's PPO does so too, RecurrentPPO does not."""
    if device.type == "cuda" and not any(isinstance(module, th.nn.Conv2d) for module in extractor.modules()):
        warnings.warn(
            "You are running NCDEPolicy on the GPU without a CNN: its networks are small and solved one after the "
            "other, which a CPU does faster. Pass device='cpu' to RecurrentPPO.",
            stacklevel=4,
        )
