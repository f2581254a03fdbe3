"""Train an agent that balances a pole whose speed it cannot see: ``python -m sb3_ncde.quickstart``."""

import argparse
import os
import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch as th
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, sync_envs_normalization

try:
    import matplotlib as mpl
    from rich.console import Console
    from rich.table import Table
    from stable_baselines3.common.monitor import load_results
    from tqdm import TqdmExperimentalWarning

    from sb3_ncde.hyperparams import Settings, settings
except ImportError as error:
    if (error.name or "").split(".")[0] not in ("matplotlib", "pandas", "rich", "tqdm", "yaml"):
        raise
    sys.exit(
        f"sb3_ncde.quickstart needs {error.name}, which is not installed. It comes with the extra train; in a clone of "
        "this package: pip install '.[train]'"
    )


class Yardstick(NamedTuple):
    """What to compare a score with.

    :param memoryless: return of PPO without memory, by the same settings and after as many steps
    :param most: the most that can be reached; where that is not known, what PPO reaches that sees the velocity
    """

    memoryless: str
    most: str


YARDSTICKS = {
    "sb3_ncde/CartPoleNoVel-v1": Yardstick("43", "500, the time limit"),
    "sb3_ncde/PendulumNoVel-v1": Yardstick("-1009", "not known; PPO that sees the velocity: -141"),
    "sb3_ncde/IrregularPendulumNoVel-v1": Yardstick("-1268", "not known; PPO that sees the velocity: -271"),
    "CartPole-v1": Yardstick("445", "500, the time limit"),
}
"""By environment; these are what the command offers. Means of seeds 0 to 2, by ``python benchmarks/yardstick.py``."""

DEFAULT_ENV = "sb3_ncde/CartPoleNoVel-v1"
NEXT_ENV = "sb3_ncde/PendulumNoVel-v1"
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
    tuned = settings(env_id)
    output.mkdir(parents=True, exist_ok=True)
    for log in output.glob("*.monitor.csv"):
        log.unlink()
    env = normalize(
        make_vec_env(env_id, tuned.n_envs, seed=seed, monitor_dir=str(output), wrapper_class=tuned.wrapper_class),
        tuned,
    )
    warnings.filterwarnings("ignore", category=TqdmExperimentalWarning)  # from SB3's progress bar
    model = RecurrentPPO(env=env, seed=seed, device="cpu", **tuned.model)
    try:
        model.learn(n_timesteps or tuned.n_timesteps, progress_bar=True)
    except KeyboardInterrupt:
        Console().print(f"Stopped after {model.num_timesteps:,} steps.")
    model.save(output / "model.zip")
    env.save(str(output / "vecnormalize.pkl"))
    env.close()
    return model


def normalize(env: VecEnv, tuned: Settings) -> VecNormalize:
    """Return the environments with SB3's normalisation, as the settings say; elapsed time is left alone."""
    keys = None
    if isinstance(env.observation_space, spaces.Dict):
        keys = [key for key in env.observation_space if key != tuned.model["policy_kwargs"]["time_key"]]
    return VecNormalize(
        env,
        norm_obs=tuned.normalize,
        norm_reward=tuned.normalize,
        gamma=tuned.model["gamma"],
        norm_obs_keys=keys,
    )


def evaluate(model: BaseAlgorithm, env_id: str, episodes: int = 100) -> list[float]:
    """Return the returns of deterministic episodes, in environments that training has not seen.

    :param model: with the environments that it was trained in
    :param env_id: of the environment
    :param episodes: to evaluate
    """
    training_env = model.get_vec_normalize_env()
    assert training_env is not None
    env = VecNormalize(
        make_vec_env(env_id, n_envs=10, seed=EVALUATION_SEED, wrapper_class=settings(env_id).wrapper_class),
        training=False,
        norm_obs=training_env.norm_obs,
        norm_reward=False,
        norm_obs_keys=training_env.norm_obs_keys,
    )
    sync_envs_normalization(training_env, env)
    returns, _ = evaluate_policy(model, env, n_eval_episodes=episodes, return_episode_rewards=True)
    env.close()
    assert isinstance(returns, list)
    return returns


def watch(env_id: str, output: Path, episodes: int) -> None:
    """Show episodes of the agent that was trained last, in a window.

    :param env_id: that it was trained in
    :param output: folder with ``model.zip`` and ``vecnormalize.pkl``
    :param episodes: to show
    """
    model = RecurrentPPO.load(output / "model.zip", device="cpu")
    wrapper_class = settings(env_id).wrapper_class
    venv = make_vec_env(env_id, n_envs=1, env_kwargs={"render_mode": "human"}, wrapper_class=wrapper_class)
    env = VecNormalize.load(str(output / "vecnormalize.pkl"), venv)
    env.training = env.norm_reward = False
    for episode in range(1, episodes + 1):
        mean, _ = evaluate_policy(model, env, n_eval_episodes=1)
        Console().print(f"episode {episode} of {episodes}: return {mean:.1f}")
    env.close()


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


def report(env_id: str, model: RecurrentPPO, seconds: float, returns: Sequence[float], picture: Path) -> Table:
    """Return a table of the score, what it is to be compared with, and where things are."""
    table = Table(title=f"NCDEPolicy on {env_id}", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("return, mean of 100 episodes", f"[bold]{statistics.fmean(returns):.1f}[/bold]")
    table.add_row("  PPO without memory", f"{YARDSTICKS[env_id].memoryless} (benchmarks/yardstick.py)")
    table.add_row("  the most", YARDSTICKS[env_id].most)
    table.add_row("standard deviation", f"{statistics.pstdev(returns):.1f}")
    table.add_row("worst episode", f"{min(returns):.1f}")
    table.add_row("steps of training", f"{model.num_timesteps:,}")
    table.add_row("steps per second", f"{model.num_timesteps / seconds:,.0f}")
    table.add_row("parameters", f"{sum(parameter.numel() for parameter in model.policy.parameters()):,}")
    table.add_row("model", str(picture.with_name("model.zip")))
    table.add_row("learning curve", str(picture))
    return table


def next_steps(env_id: str, output: Path) -> str:
    """Return what to do next, as commands of the Python that runs this."""
    python = os.path.relpath(sys.executable) if Path(sys.executable).is_relative_to(Path.cwd()) else sys.executable
    command = f"{python} -m sb3_ncde.quickstart"
    another = NEXT_ENV if env_id == DEFAULT_ENV else DEFAULT_ENV
    return (
        f"watch it:      {command} --watch --env {env_id} --output {output}\n"
        f'load it:       RecurrentPPO.load("{output / "model.zip"}", device="cpu")    (more: docs/saving.md)\n'
        f"another task:  {command} --env {another}\n"
        "your own:      docs/own-environment.md"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, evaluate, and show the score and the learning curve."""
    parser = argparse.ArgumentParser(prog="python -m sb3_ncde.quickstart", description=__doc__.split(":")[0])
    parser.add_argument(
        "--env", default=DEFAULT_ENV, choices=list(YARDSTICKS), help="environment (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of environments, weights and sampling (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, help="steps of training (default: as configs/ppo_ncde.yml says)")
    parser.add_argument("--output", type=Path, default=Path("runs/quickstart"), help="folder (default: %(default)s)")
    parser.add_argument("--watch", action="store_true", help="do not train: show the trained agent in a window")
    parser.add_argument("--episodes", type=int, default=3, help="to watch (default: %(default)s)")
    options = parser.parse_args(arguments)
    th.set_num_threads(1)  # one is faster: the networks are too small to split over cores
    if options.watch:
        watch(options.env, options.output, options.episodes)
        return

    begin = time.perf_counter()
    model = train(options.env, options.seed, options.steps, options.output)
    seconds = time.perf_counter() - begin
    returns = evaluate(model, options.env)
    picture = plot_learning_curve(options.output, options.env, returns)
    Console().print(report(options.env, model, seconds, returns, picture))
    print(next_steps(options.env, options.output))


if __name__ == "__main__":
    main()
