"""How a trained agent does at other sampling rates and with failing sensors."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.progress import track
from scipy.stats import bootstrap
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

from sb3_ncde.evaluation.environments import normalized_as_trained


def evaluate_grid(
    model: BaseAlgorithm,
    make_env: Callable[[Any, float], gym.Env[Any, Any]],
    periods: Sequence[float] = (1,),
    drop_rates: Sequence[float] = (0.0,),
    *,
    n_episodes: int = 100,
    n_envs: int = 10,
    seed: int = 10_000,
    deterministic: bool = True,
    vec_normalize: VecNormalize | None = None,
    confidence: float = 0.95,
    progress_bar: bool = False,
) -> pd.DataFrame:
    """Evaluate one agent at each pair of a sampling period and a drop rate.

    All pairs begin with the same seeds. The interval is the bootstrap's percentiles of the mean over episodes (Efron
    and Tibshirani 1993): it says how well this agent's mean is known, not how much agents differ from each other.

    :param model: of any algorithm and policy
    :param make_env: makes an environment from a period and a drop rate. What a period counts is up to it: steps of
        physics from one observation to the next, seconds, or another setting of the environment
    :param periods: to evaluate
    :param drop_rates: to evaluate; for ``make_env``, as a share of the values that are missing
    :param n_episodes: of each pair
    :param n_envs: environments that a pair is evaluated in side by side
    :param seed: of the first environment
    :param deterministic: whether to take the most likely actions
    :param vec_normalize: normalisation of the training, whose statistics are used and stay as they are; None: that of
        the model's own environment, if it has one
    :param confidence: level of the interval
    :param progress_bar: whether to show one
    :return: one row for each pair: period, drop_rate, mean, low and high (of the interval), std and worst (of the
        episodes' returns), episodes
    :raises ValueError: if an environment has other spaces than the model, for less than one episode, or for a
        confidence that is not between 0 and 1
    """
    if n_episodes < 1 or n_envs < 1:
        raise ValueError(f"n_episodes={n_episodes}, n_envs={n_envs}: expected at least one of each.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: expected a share between 0 and 1, 0.95 for 95 %.")
    rows = []
    pairs = list(product(periods, drop_rates))
    for period, drop_rate in track(pairs, "evaluating", disable=not progress_bar):
        env = normalized_as_trained(model, [partial(make_env, period, drop_rate)] * n_envs, vec_normalize)
        env.seed(seed)
        returns, _ = evaluate_policy(
            model, env, n_episodes, deterministic=deterministic, return_episode_rewards=True, warn=False
        )
        env.close()
        low, high = _interval(np.array(returns), confidence, seed)
        rows.append(
            {
                "period": period,
                "drop_rate": drop_rate,
                "mean": np.mean(returns),
                "low": low,
                "high": high,
                "std": np.std(returns),
                "worst": np.min(returns),
                "episodes": n_episodes,
            }
        )
    return pd.DataFrame(rows)


def over_agents(tables: pd.DataFrame, confidence: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Return the means over agents of one kind (seeds of training), with the bootstrap's interval over these.

    :param tables: of :func:`evaluate_grid` for each agent, one below the other
    :param confidence: level of the interval
    :param seed: of the bootstrap
    :return: period, drop_rate, mean, low, high, worst (of the agents' means) and agents
    """
    rows = []
    for (period, drop_rate), means in tables.groupby(["period", "drop_rate"])["mean"]:
        low, high = _interval(means.to_numpy(), confidence, seed)
        row = {"mean": means.mean(), "low": low, "high": high, "worst": means.min(), "agents": len(means)}
        rows.append({"period": period, "drop_rate": drop_rate, **row})
    return pd.DataFrame(rows)


def plot_grid(table: pd.DataFrame, axes: Axes | None = None, label: str = "") -> Axes:
    """Draw the means of :func:`evaluate_grid` or :func:`over_agents`, with their intervals as bands.

    Along the axis are the periods, with a line for each drop rate; or the drop rates, where there is one period. The
    axis is labelled "period", a number that ``make_env`` of :func:`evaluate_grid` gave its meaning: name it by
    ``axes.set_xlabel("seconds between observations")``.

    :param table: of one of these
    :param axes: to draw on; None: new ones
    :param label: of the lines, before what they stand for
    """
    if axes is None:
        axes = Figure(figsize=(7, 4.5), layout="constrained").subplots()
    along, lines = ("period", "drop_rate") if table["period"].nunique() > 1 else ("drop_rate", "period")
    names = {"period": "period", "drop_rate": "share of values that are missing"}
    for value, group in table.groupby(lines):
        what = f"{lines.replace('_', ' ')} {value:g}" if table[lines].nunique() > 1 else ""
        group = group.sort_values(along)
        (line,) = axes.plot(group[along], group["mean"], "o-", label=" ".join(filter(None, (label, what))) or None)
        axes.fill_between(group[along], group["low"], group["high"], color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(xlabel=names[along], ylabel="return, mean of episodes")
    axes.set_xticks(sorted(table[along].unique()))
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[1]:
        axes.legend()
    return axes


def _interval(values: npt.NDArray[Any], confidence: float, seed: int) -> tuple[float, float]:
    """Return the bootstrap's interval of a mean; of a single value there is none but itself."""
    if len(values) < 2:
        return float(values[0]), float(values[0])
    rng = np.random.default_rng(seed)
    interval = bootstrap((values,), np.mean, confidence_level=confidence, method="percentile", rng=rng)
    return float(interval.confidence_interval.low), float(interval.confidence_interval.high)
