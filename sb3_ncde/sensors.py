"""Wrappers that make sensors what they often are: irregular, noisy, failing, each at its own rate.

The public path of what stands in ``sb3_ncde/envs``. A delay of whole steps is ``gymnasium.wrappers.DelayObservation``.
"""

from sb3_ncde.envs.missing import AsynchronousSensors, SensorDropout
from sb3_ncde.envs.sampling import IrregularSampling
from sb3_ncde.envs.wrappers import NoisyObservation, SelectColumns

__all__ = ["AsynchronousSensors", "IrregularSampling", "NoisyObservation", "SelectColumns", "SensorDropout"]
