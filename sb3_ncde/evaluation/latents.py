"""What the memory of a trained agent does between the observations of an episode."""

from typing import Any

import gymnasium as gym
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import torch as th
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize

from sb3_ncde.cde.trajectory import between
from sb3_ncde.envs.normalization import refuse_missing_statistics
from sb3_ncde.evaluation.environments import normalized_as_trained
from sb3_ncde.policies import NCDEPolicy

SHOWN = 12
"""Features that a picture shows at most; of more (images) the first ones."""


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

    Observations are marks, each at its own time; a value that is missing has none. Feature i is the i-th of what the
    features extractor returns: of a vector, its i-th column, the time left out. z is drawn along the path between
    observations, a line for each unit, solved by the encoder's own steps; at a hop another window takes over, and z
    jumps.

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
        env = normalized_as_trained(model, [lambda: single], vec_normalize)
    env = model._wrap_env(env, monitor_wrapper=False)  # images as SB3's networks take them
    check_for_correct_spaces(env, model.observation_space, model.action_space)
    refuse_missing_statistics(model, unwrap_vec_normalize(env))
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
    for feature in range(min(SHOWN, rows.shape[1] - 1)):
        color = mpl.colormaps["tab20"](feature % 10 * 2 + feature // 10)  # its ten dark colors, then the light ones
        panels[0].plot(times, rows[:, feature].numpy(), "o", color=color, markersize=3, label=f"feature {feature}")
    panels[0].set_ylabel("observation\n(as the agent sees it)")
    colors = mpl.colormaps["viridis"](np.linspace(0, 0.95, encoder.arguments.latent_size))
    for unit, color in enumerate(colors):
        panels[1].plot(latent, z[..., unit].numpy(), color=color, linewidth=0.9)
        panels[1].plot(times[1:], z[-1, :, unit].numpy(), ".", color=color, markersize=3)
    panels[1].set_ylabel("latent state z")
    panels[2].plot(times, values, ".-", color="tab:blue", linewidth=0.8, markersize=3)
    panels[2].set_ylabel("value")
    for part, action in enumerate(np.transpose(actions)):
        panels[3].step(times, action, ".-", where="post", linewidth=0.8, markersize=3, label=f"action {part}")
    panels[3].set(ylabel="action", xlabel="time")
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.01)
    _add_legends(panels[0], panels[1], panels[3], colors[0])
    return figure


def _add_legends(features: Axes, latent: Axes, actions: Axes, color: Any) -> None:
    """Say beside the panels what is drawn; the units of z, of which there are many, share one entry."""
    beside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "fontsize": "small", "frameon": False}
    features.legend(ncols=-(-len(features.lines) // 7), **beside)
    line = Line2D([], [], color=color, linewidth=0.9, label="between observations")
    mark = Line2D([], [], color=color, marker=".", linestyle="None", label="at an observation")
    latent.legend(handles=[line, mark], title="a color for each unit", title_fontsize="small", **beside)
    if len(actions.lines) > 1:
        actions.legend(ncols=-(-len(actions.lines) // 5), **beside)


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
