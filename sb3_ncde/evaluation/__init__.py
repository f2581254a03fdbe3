"""How a trained agent does, and what its memory does: tables and pictures. Nothing that trains.

All of it is public, from here: ``from sb3_ncde.evaluation import evaluate_grid``. It works for agents of any algorithm
where it can, and needs the extra ``train`` (matplotlib, pandas, SciPy).
"""

from sb3_ncde.evaluation.grid import evaluate_grid, over_agents, plot_grid
from sb3_ncde.evaluation.latents import plot_latents

__all__ = ["evaluate_grid", "over_agents", "plot_grid", "plot_latents"]
