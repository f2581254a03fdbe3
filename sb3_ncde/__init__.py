"""Continuous-time memory for Stable-Baselines3: neural controlled differential equation policies.

Importing the package registers its policies with RecurrentPPO, as "NCDEPolicy", "CnnNCDEPolicy" and
"MultiInputNCDEPolicy", and its environments with Gymnasium, under the namespace ``sb3_ncde/``. Other algorithms that
are asked for these names say what to use instead.

Where PyTorch is not installed, as on a robot, there is :mod:`sb3_ncde.deploy` alone.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or find_spec("torch") is not None:
    from importlib.metadata import version

    from sb3_ncde import envs, presets
    from sb3_ncde.buffers import HistoryReplayBuffer
    from sb3_ncde.memory import with_memory
    from sb3_ncde.policies import CnnNCDEPolicy, MultiInputNCDEPolicy, NCDEPolicy
    from sb3_ncde.registration import register
    from sb3_ncde.torch_layers import NCDEExtractor
    from sb3_ncde.vec_history import VecHistory

    __version__ = version("sb3-ncde")
    register()
else:

    def __getattr__(name: str) -> Any:
        """Say why a name is missing; the version is looked up where it is asked for, as that takes its time."""
        if name == "__version__":
            from importlib.metadata import version

            return version("sb3-ncde")
        if name in __all__:
            raise ImportError(
                f"sb3_ncde.{name} needs PyTorch and Stable-Baselines3, which are not installed: install sb3-ncde "
                "without --no-deps. Without them there is sb3_ncde.deploy, which runs exported agents."
            )
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "CnnNCDEPolicy",
    "HistoryReplayBuffer",
    "MultiInputNCDEPolicy",
    "NCDEExtractor",
    "NCDEPolicy",
    "VecHistory",
    "envs",
    "presets",
    "with_memory",
]
