"""Normalisation that leaves time and missing values alone.

The public path of what stands in ``sb3_ncde/envs/normalization.py``; files of version 0.1.0 name both classes by it.
"""

from sb3_ncde.envs.normalization import ObservedMeanStd, VecNormalizeObserved

__all__ = ["ObservedMeanStd", "VecNormalizeObserved"]
