"""How a trained agent does at other sampling rates and with failing sensors, and what its memory does in between.

Needs the extra ``train`` (matplotlib, pandas, SciPy).
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

import gymnasium as gym
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch as th
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.progress import track
from scipy.stats import bootstrap
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from sb3_ncde.policies import NCDEPolicy
from sb3_ncde.trajectory import between

SHOWN = 12
"""Features that a picture shows at most; of more (images) the first ones."""


def evaluate_grid(
    model: BaseAlgorithm,
    make_env: Callable[[int, float], gym.Env[Any, Any]],
    periods: Sequence[int] = (1,),
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
    :param make_env: makes an environment from a period, in steps of physics, and a drop rate
    :param periods: to evaluate
    :param drop_rates: to evaluate
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
        env = _vec_env(model, [partial(make_env, period, drop_rate)] * n_envs, vec_normalize)
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

    Along the axis are the periods, with a line for each drop rate; or the drop rates, where there is one period.

    :param table: of one of these
    :param axes: to draw on; None: new ones
    :param label: of the lines, before what they stand for
    """
    if axes is None:
        axes = Figure(figsize=(7, 4.5), layout="constrained").subplots()
    along, lines = ("period", "drop_rate") if table["period"].nunique() > 1 else ("drop_rate", "period")
    names = {"period": "steps of physics between observations", "drop_rate": "share of values that are missing"}
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


def plot_latents(
    model: BaseAlgorithm,
    env: gym.Env[Any, Any] | VecEnv,
    *,
    deterministic: bool = True,
    seed: int = 0,
    vec_normalize: VecNormalize | None = None,
    n_points: int = 16,
) -> Figure:
    """Draw one episode: its observations, z between them, and beneath the values and actions.

    Observations are marks, each at its own time; a value that is missing has none. z is drawn along the path between
    them, solved by the encoder's own steps; at a hop another window takes over, and z jumps.

    :param model: with an NCDEPolicy
    :param env: an environment; or a vectorised one of a single environment, normalised as the model expects it, which
        is used as it is: set ``training = False`` on a VecNormalize whose statistics shall stay as they are
    :param deterministic: whether to take the most likely actions
    :param seed: of the environment
    :param vec_normalize: normalisation of the training, if the environment is not vectorised; None: that of the model's
        own environment, if it has one
    :param n_points: of z from one observation to the next, both ends included
    :raises TypeError: for a model with another policy
    :raises ValueError: if the environment has other spaces than the model, or is several, or for less than two points
    """
    policy = model.policy
    if not isinstance(policy, NCDEPolicy):
        raise TypeError(f"The latent state between observations is that of an NCDEPolicy, not of {type(policy)}.")
    if n_points < 2:
        raise ValueError(f"n_points={n_points}: expected at least 2, both ends of what is drawn.")
    if not isinstance(env, VecEnv):
        single = env
        env = _vec_env(model, [lambda: single], vec_normalize)
    check_for_correct_spaces(env, model.observation_space, model.action_space)
    if env.num_envs != 1:
        raise ValueError(f"An episode of one environment is drawn, but there are {env.num_envs}.")
    env.seed(seed)
    rows, values, actions = _play(policy, env, deterministic)
    encoder = policy.lstm_actor
    times = np.concatenate(([0.0], _elapsed(policy, rows)[1:].cumsum()))
    fractions, z = between(encoder, rows, n_points)
    latent = times[:-1] + fractions.numpy()[:, None] * np.diff(times)  # (P, T - 1)

    figure = Figure(figsize=(10, 9), layout="constrained")
    panels = figure.subplots(4, sharex=True, height_ratios=(2, 3, 1.2, 1.2))
    panels[0].plot(times, rows[:, : min(SHOWN, rows.shape[1] - 1)].numpy(), "o", markersize=3)
    panels[0].set_ylabel("observation\n(as the agent sees it)")
    colors = mpl.colormaps["viridis"](np.linspace(0, 0.95, encoder.latent_size))
    for unit, color in enumerate(colors):
        panels[1].plot(latent, z[..., unit].numpy(), color=color, linewidth=0.9)
        panels[1].plot(times[1:], z[-1, :, unit].numpy(), ".", color=color, markersize=3)
    panels[1].set_ylabel("latent state z")
    panels[2].plot(times, values, ".-", color="tab:blue", linewidth=0.8, markersize=3)
    panels[2].set_ylabel("value")
    panels[3].step(times, actions, ".-", where="post", linewidth=0.8, markersize=3)
    panels[3].set(ylabel="action", xlabel="time")
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.01)
    return figure


def _interval(values: npt.NDArray[Any], confidence: float, seed: int) -> tuple[float, float]:
    """Return the bootstrap's interval of a mean; of a single value there is none but itself."""
    if len(values) < 2:
        return float(values[0]), float(values[0])
    rng = np.random.default_rng(seed)
    interval = bootstrap((values,), np.mean, confidence_level=confidence, method="percentile", rng=rng)
    return float(interval.confidence_interval.low), float(interval.confidence_interval.high)


def _vec_env(
    model: BaseAlgorithm, makers: Sequence[Callable[[], gym.Env[Any, Any]]], vec_normalize: VecNormalize | None
) -> VecEnv:
    """Return environments with the normalisation of the training, which no longer learns."""
    env = DummyVecEnv([partial(_monitored, make) for make in makers])
    wrapped = model._wrap_env(env, monitor_wrapper=False)  # images as SB3's networks take them
    check_for_correct_spaces(wrapped, model.observation_space, model.action_space)
    normalize = model.get_vec_normalize_env() if vec_normalize is None else vec_normalize
    if normalize is None:
        return wrapped
    normalize = copy.deepcopy(normalize)  # as it is saved: without its environments
    normalize.set_venv(env)
    normalize.training = normalize.norm_reward = False
    return model._wrap_env(normalize, monitor_wrapper=False)


def _monitored(make_env: Callable[[], gym.Env[Any, Any]]) -> gym.Env[Any, Any]:
    return Monitor(make_env())


def _play(policy: NCDEPolicy, env: VecEnv, deterministic: bool) -> tuple[th.Tensor, npt.NDArray[Any], npt.NDArray[Any]]:
    """Return features and times (T, D + 1), values (T,) and actions (T, ...) of an episode."""
    observation: Any = env.reset()
    state, start, over = None, np.array([True]), False
    rows, values, actions = [], [], []
    zeros = th.zeros(policy.lstm_hidden_state_shape, device=policy.device)
    while not over:
        tensor, _ = policy.obs_to_tensor(observation)
        before = (zeros, zeros) if state is None else tuple(th.as_tensor(part, device=policy.device) for part in state)
        with th.no_grad():
            features = policy.extract_features(tensor)
            rows.append((features[0] if isinstance(features, tuple) else features).cpu())
            starts = th.as_tensor(start, dtype=th.float32, device=policy.device)
            values.append(policy.predict_values(tensor, (before[0], before[1]), starts).item())
        action, state = policy.predict(observation, state, start, deterministic)
        actions.append(action[0].reshape(-1))
        observation, _, done, _ = env.step(action)
        start, over = done, bool(done[0])
    return th.cat(rows), np.array(values), np.array(actions)


def _elapsed(policy: NCDEPolicy, rows: th.Tensor) -> npt.NDArray[Any]:
    """Return the time since the observation before of each step, in the user's unit, (T,)."""
    history, time = policy.lstm_actor.history, rows[:, -1].double().numpy()
    if policy.arguments.time_key is None:
        return np.full_like(time, policy.arguments.dt)
    return np.diff(time, prepend=time[0]) if history.timestamps else time
