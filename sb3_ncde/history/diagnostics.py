"""What only shows over many observations: time that hardly passes, sensors that never have a value."""

import torch as th

from sb3_ncde.history.validation import NORMALIZED_TIME

LONGEST_FAILURE = 5_000
"""Observations in a row, of all environments together, after which a sensor without a value is an error."""
SLOWEST = 0.01
"""Mean of the nominal steps between observations below which time is an error."""
CLOCK_ROWS = 128
"""Observations over which this mean is taken; not more than a usual rollout, so that no update has been made."""


class ClockWatch:
    """Looks for time that hardly passes.

    Normalised, a constant elapsed time is about 0, and a timestamp moves by hundredths.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._steps: th.Tensor | float = 0.0
        self._elapsed: th.Tensor | float = 0.0

    def check(self, elapsed: th.Tensor, episode_starts: th.Tensor) -> None:
        """Take in the nominal steps since the observation before, (N,), and raise ValueError if they are near 0."""
        self._rows += len(elapsed)
        self._steps = self._steps + (episode_starts.flatten() == 0).sum()
        self._elapsed = self._elapsed + elapsed.sum()
        if self._rows < CLOCK_ROWS:
            return
        steps, total = float(self._steps), float(self._elapsed)
        self._rows, self._steps, self._elapsed = 0, 0.0, 0.0
        if total < SLOWEST * steps:
            raise ValueError(
                f"From one observation to the next, {total / steps:.2g} x dt passed on average (of {steps:.0f}); dt "
                f"should be what usually passes. {NORMALIZED_TIME}"
            )


class FailureWatch:
    """Looks for features that are missing in all environments, for ever.

    The statistics of SB3's VecNormalize become NaN with the first NaN, and with them every later value of the feature:
    to the policy this looks like a sensor that has failed in all environments at once.
    """

    def __init__(self) -> None:
        self._missing: th.Tensor | float = 0.0

    def check(self, features: th.Tensor) -> None:
        """Take in the features of a step of the rollout, (N, D), and raise ValueError for one that has failed."""
        failed = th.isnan(features).all(dim=0)
        self._missing = th.where(failed, self._missing + len(features), 0.0)
        if bool((self._missing >= LONGEST_FAILURE).any()):
            index = self._missing.argmax().item()
            self._missing = 0.0  # training may go on once this is mended
            raise ValueError(
                f"Feature {index} has been NaN for {LONGEST_FAILURE} observations in a row, in all environments. If "
                "they are wrapped in VecNormalize, a single NaN has made its statistics NaN: use "
                "sb3_ncde.normalize.VecNormalizeObserved. A sensor that never has a value is best left out."
            )
