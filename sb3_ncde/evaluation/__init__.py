"""How a trained agent does, and what its memory does: tables and pictures. Nothing that trains.

All of it is public, from here: ``from sb3_ncde.evaluation import evaluate_grid``. It works for agents of any algorithm
where it can, and needs the extra ``train`` (matplotlib, pandas, SciPy).
"""

try:
    from sb3_ncde.evaluation.grid import evaluate_grid, over_agents, plot_grid
    from sb3_ncde.evaluation.latents import plot_latents
except ImportError as error:
    if (error.name or "").split(".")[0] not in ("matplotlib", "pandas", "rich", "scipy"):
        raise
    raise ImportError(
        f"sb3_ncde.evaluation needs {error.name}, which is not installed. It comes with the extra train; in a clone of "
        "this package: pip install '.[train]'",
        name=error.name,
    ) from None

__all__ = ["evaluate_grid", "over_agents", "plot_grid", "plot_latents"]
