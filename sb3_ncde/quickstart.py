"""Train an agent that balances a pole whose speed it cannot see: ``python -m sb3_ncde.quickstart``."""

import argparse
import statistics
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import gymnasium as gym
import matplotlib as mpl
import torch as th
from rich.console import Console
from rich.table import Table
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import load_results
from stable_baselines3.common.vec_env import VecNormalize, sync_envs_normalization
from tqdm import TqdmExperimentalWarning

import sb3_ncde  # noqa: F401  (registers policies and environments)
from sb3_ncde.hyperparams import hyperparams, with_schedules

DEFAULT_ENV = "sb3_ncde/CartPoleNoVel-v1"
SETTINGS = {
    env_id: settings
    for env_id, settings in hyperparams.items()
    if env_id in gym.registry and "policy_kwargs" not in settings
}
"""By environment; without those that only the RL Zoo registers, or that need more than the defaults of the policy."""
EVALUATION_SEED = 10_000


def train(env_id: str, seed: int, n_timesteps: int | None, output: Path) -> RecurrentPPO:
    """Train with the settings of ``configs/ppo_ncde.yml``, and save model, normalisation and episode log.

    Ctrl-C ends training early; what has been learned until then is saved. Episode logs of an earlier run in ``output``
    are deleted.

    :param env_id: an environment that ``configs/ppo_ncde.yml`` has settings for
    :param seed: of environments, weights and sampling
    :param n_timesteps: steps of training; None: as many as the settings say
    :param output: folder for ``model.zip``, ``vecnormalize.pkl`` and ``*.monitor.csv``
    :raises ValueError: if there are no settings for the environment
    """
    if env_id not in SETTINGS:
        raise ValueError(f"No settings for {env_id}; there are settings for {', '.join(SETTINGS)}.")
    settings = dict(SETTINGS[env_id])
    policy, n_envs, planned = settings.pop("policy"), settings.pop("n_envs"), int(settings.pop("n_timesteps"))
    output.mkdir(parents=True, exist_ok=True)
    for log in output.glob("*.monitor.csv"):
        log.unlink()
    normalize = settings.pop("normalize")
    env = VecNormalize(
        make_vec_env(env_id, n_envs=n_envs, seed=seed, monitor_dir=str(output)),
        norm_obs=normalize,
        norm_reward=normalize,
        gamma=settings["gamma"],
    )
    warnings.filterwarnings("ignore", category=TqdmExperimentalWarning)  # from SB3's progress bar
    model = RecurrentPPO(policy.split(".")[-1], env, seed=seed, device="cpu", **with_schedules(settings))
    try:
        model.learn(n_timesteps or planned, progress_bar=True)
    except KeyboardInterrupt:
        Console().print(f"Stopped after {model.num_timesteps:,} steps.")
    model.save(output / "model.zip")
    env.save(str(output / "vecnormalize.pkl"))
    env.close()
    return model


def evaluate(model: RecurrentPPO, env_id: str, episodes: int = 100) -> list[float]:
    """Return the returns of deterministic episodes, in environments that training has not seen."""
    training_env = model.get_vec_normalize_env()
    assert training_env is not None
    env = VecNormalize(
        make_vec_env(env_id, n_envs=10, seed=EVALUATION_SEED),
        training=False,
        norm_obs=training_env.norm_obs,
        norm_reward=False,
    )
    sync_envs_normalization(training_env, env)
    returns, _ = evaluate_policy(model, env, n_eval_episodes=episodes, return_episode_rewards=True)
    env.close()
    assert isinstance(returns, list)
    return returns


def plot_learning_curve(output: Path, env_id: str, returns: Sequence[float]) -> Path:
    """Plot the return of each training episode, their running mean, and the final score; return the picture's path."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    episodes = load_results(str(output)).sort_values("t")
    steps, mean = episodes["l"].cumsum(), episodes["r"].rolling(10, min_periods=1).mean()
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.plot(steps, episodes["r"], ".", color="tab:blue", alpha=0.25, markersize=4, label="training episode")
    axes.plot(steps, mean, color="tab:blue", linewidth=2, label="mean of the last 10")
    axes.axhline(
        statistics.fmean(returns),
        color="tab:orange",
        linewidth=2,
        linestyle="--",
        label=f"trained agent, deterministic: {statistics.fmean(returns):.1f}",
    )
    axes.set(xlabel="environment steps", ylabel="return of an episode", title=env_id)
    axes.margins(x=0.01)
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    picture = output / "learning_curve.png"
    figure.savefig(picture, dpi=150)
    plt.close(figure)
    return picture


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, evaluate, and show the score and the learning curve."""
    parser = argparse.ArgumentParser(prog="python -m sb3_ncde.quickstart", description=__doc__.split(":")[0])
    parser.add_argument("--env", default=DEFAULT_ENV, choices=list(SETTINGS), help="environment (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of environments, weights and sampling (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, help="steps of training (default: as configs/ppo_ncde.yml says)")
    parser.add_argument("--output", type=Path, default=Path("runs/quickstart"), help="folder (default: %(default)s)")
    options = parser.parse_args(arguments)
    th.set_num_threads(1)  # one is faster: the networks are too small to split over cores

    begin = time.perf_counter()
    model = train(options.env, options.seed, options.steps, options.output)
    seconds = time.perf_counter() - begin
    returns = evaluate(model, options.env)
    picture = plot_learning_curve(options.output, options.env, returns)

    table = Table(title=f"NCDEPolicy on {options.env}", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("return, mean of 100 episodes", f"{statistics.fmean(returns):.1f}")
    table.add_row("standard deviation", f"{statistics.pstdev(returns):.1f}")
    table.add_row("worst episode", f"{min(returns):.1f}")
    table.add_row("steps of training", f"{model.num_timesteps:,}")
    table.add_row("steps per second", f"{model.num_timesteps / seconds:,.0f}")
    table.add_row("parameters", f"{sum(parameter.numel() for parameter in model.policy.parameters()):,}")
    table.add_row("model", str(options.output / "model.zip"))
    table.add_row("learning curve", str(picture))
    Console().print(table)


if __name__ == "__main__":
    main()
