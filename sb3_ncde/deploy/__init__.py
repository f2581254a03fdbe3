"""A trained agent without what trained it: from one file, in NumPy alone or in ONNX Runtime.

:class:`Agent` acts, and imports NumPy only. :func:`export_numpy` and :func:`export_onnx` write the files; they need
what trained the agent. What is computed belongs to ``acting`` and ``cde``; here is what a file holds of it.
"""

from typing import TYPE_CHECKING, Any

from sb3_ncde.deploy.agent import Agent

if TYPE_CHECKING:
    from sb3_ncde.deploy.export import export_numpy, export_onnx

__all__ = ["Agent", "export_numpy", "export_onnx"]


def __getattr__(name: str) -> Any:
    """Import what needs PyTorch only when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sb3_ncde.deploy import export

    return getattr(export, name)
