"""The space of observations whose values may be missing, for environments of one's own.

The public path of what stands in ``sb3_ncde/envs/spaces.py``; files of version 0.1.0 name the class by it.
"""

from sb3_ncde.envs.spaces import BoxWithMissing

__all__ = ["BoxWithMissing"]
