"""What the shipped settings reach: several seeds, each trained and then evaluated by the RL Zoo's own commands."""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import rl_zoo3.import_envs  # noqa: F401  (registers the RL Zoo's environments)
from huggingface_sb3 import EnvironmentName
from rich.console import Console
from rich.progress import track
from rich.table import Table
from stable_baselines3.common.monitor import load_results

EPISODES = 100
"""Of an evaluation, at least."""


class Result(NamedTuple):
    """The returns of a trained agent's deterministic episodes."""

    seed: int
    returns: list[float]

    @property
    def mean(self) -> float:
        """The mean return."""
        return statistics.fmean(self.returns)


def run(env_id: str, seed: int, folder: Path, n_timesteps: int | None, eval_steps: int) -> Result:
    """Train and evaluate one seed, or return what an earlier run of it left.

    :param env_id: a registered environment
    :param seed: of the training
    :param folder: for the trained agent, the commands' output and the evaluation's episodes
    :param n_timesteps: steps of training; None: as the settings say
    :param eval_steps: steps of evaluation
    :raises RuntimeError: if a command fails, with the end of what it printed
    """
    common = ["--env", env_id, "-f", str(folder)]
    name = EnvironmentName(env_id)
    if not list(folder.glob(f"ppo_ncde/{name}_*/{name}.zip")):
        steps = [] if n_timesteps is None else ["-n", str(n_timesteps)]
        run_command(folder / "train.txt", "train", *common, "--seed", str(seed), "--eval-freq", "-1", *steps)
    evaluation = folder / "evaluation"
    if not (folder / "enjoy.txt").exists():
        options = ["--no-render", "-n", str(eval_steps), "--reward-log", str(evaluation)]
        run_command(folder / "enjoy.txt", "enjoy", *common, *options)
    return Result(seed, load_results(str(evaluation))["r"].tolist())


def run_command(output: Path, *arguments: str) -> None:
    """Run a subcommand of ``sb3-ncde``, and write what it prints to a file once it has ended well."""
    output.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([sys.executable, "-m", "sb3_ncde.cli", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"sb3-ncde {' '.join(arguments)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    output.write_text(done.stdout)


def report(env_id: str, results: Sequence[Result]) -> Table:
    """Return a table of the seeds, and of all of them together."""
    means = [result.mean for result in results]
    spread = statistics.stdev(means) if len(means) > 1 else 0.0
    table = Table(
        "seed",
        "mean return",
        "standard deviation",
        "worst episode",
        "episodes",
        title=f"ppo_ncde on {env_id}, deterministic",
        caption=f"mean over seeds {statistics.fmean(means):.1f} +- {spread:.1f}, worst seed {min(means):.1f}",
    )
    for result in results:
        numbers = (result.mean, statistics.pstdev(result.returns), min(result.returns))
        table.add_row(str(result.seed), *(f"{number:.1f}" for number in numbers), str(len(result.returns)))
    return table


def main() -> None:
    """Train, evaluate and print a table."""
    parser = argparse.ArgumentParser(
        description="Goes on where an earlier run of the same log folder was stopped.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--env", required=True, help="environment ID")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="of the trainings")
    parser.add_argument("-n", "--n-timesteps", type=int, help="steps of training; None: as the settings say")
    parser.add_argument("--eval-steps", type=int, help=f"of evaluation; None: {EPISODES} of the longest episodes")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument("-f", "--log-folder", type=Path, default=Path("logs"), help="log folder")
    options = parser.parse_args()
    limit = gym.spec(options.env).max_episode_steps
    eval_steps = options.eval_steps or EPISODES * (limit or 1000)
    folder = options.log_folder / "benchmark" / EnvironmentName(options.env)
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = [
            pool.submit(run, options.env, seed, folder / f"seed_{seed}", options.n_timesteps, eval_steps)
            for seed in options.seeds
        ]
        results = [done.result() for done in track(runs, "training and evaluating")]
    Console().print(report(options.env, results))
