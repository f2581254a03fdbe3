"""What the shipped settings reach: several seeds, each trained and then evaluated by the RL Zoo's own commands."""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import rl_zoo3.import_envs  # noqa: F401  (registers the RL Zoo's environments)
from huggingface_sb3 import EnvironmentName
from rich.console import Console
from rich.progress import track
from rich.table import Table
from stable_baselines3.common.monitor import load_results

from sb3_ncde.hyperparams import hyperparams

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


class Benchmark:
    """Trains and evaluates seeds of an environment; what has been finished before, with the same settings, is kept.

    :param env_id: a registered environment
    :param folder: for the trained agents, the commands' output and the evaluations' episodes
    :param n_timesteps: steps of training; None: as the settings say
    :param eval_steps: steps of evaluation
    :param conf_file: settings, as the RL Zoo's ``--conf-file``; None: those of this package
    :param gym_packages: modules to import that register environments
    """

    def __init__(
        self,
        env_id: str,
        folder: Path,
        n_timesteps: int | None,
        eval_steps: int,
        conf_file: str | None = None,
        gym_packages: Sequence[str] = (),
    ) -> None:
        self.env_id = env_id
        self.folder = folder
        self.n_timesteps = n_timesteps
        self.eval_steps = eval_steps
        self.children: list[subprocess.Popen[str]] = []
        self.packages = ["--gym-packages", *gym_packages] if gym_packages else []
        self.conf = [] if conf_file is None else ["--conf-file", conf_file]
        settings: object = hyperparams.get(env_id, hyperparams["default"])
        if conf_file is not None:
            settings = Path(conf_file).read_text() if Path(conf_file).exists() else conf_file
        self.asked = {"settings": settings, "n_timesteps": n_timesteps, "eval_steps": eval_steps}

    def run(self, seed: int) -> Result:
        """Train and evaluate a seed.

        :raises ValueError: if an earlier run in the folder had other settings, or too few steps for an episode
        :raises RuntimeError: if a command fails, with the end of what it printed
        """
        folder = self.folder / f"seed_{seed}"
        done, evaluation = folder / "done.json", folder / "evaluation"
        if done.exists():
            if json.loads(done.read_text()) != self.asked:
                raise ValueError(f"{folder} has results of other settings: remove it, or choose another log folder.")
            return Result(seed, load_results(str(evaluation))["r"].tolist())
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was interrupted
        common = ["--env", self.env_id, "-f", str(folder), *self.packages]
        steps = [] if self.n_timesteps is None else ["-n", str(self.n_timesteps)]
        self.call(folder / "train.txt", "train", *common, "--seed", str(seed), "--eval-freq", "-1", *steps, *self.conf)
        options = ["--no-render", "-n", str(self.eval_steps), "--reward-log", str(evaluation)]
        self.call(folder / "enjoy.txt", "enjoy", *common, *options)
        returns = load_results(str(evaluation))["r"].tolist()
        if not returns:
            raise ValueError(f"No episode ended within {self.eval_steps} steps of evaluation.")
        done.write_text(json.dumps(self.asked))
        return Result(seed, returns)

    def call(self, output: Path, *arguments: str) -> None:
        """Run a subcommand of ``sb3-ncde``, and write what it prints to a file once it has ended well."""
        output.parent.mkdir(parents=True, exist_ok=True)
        # In a session of its own: Ctrl-C would end its training early, and it would look finished.
        child = subprocess.Popen(
            [sys.executable, "-m", "sb3_ncde.cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.children.append(child)
        printed = child.communicate()[0]
        if child.returncode:
            raise RuntimeError(f"sb3-ncde {' '.join(arguments)} failed:\n{printed[-2000:]}")
        output.write_text(printed)

    def run_all(self, seeds: Sequence[int], jobs: int) -> list[Result]:
        """Run seeds, so many at once; on Ctrl-C end those that run and begin no others."""
        with ThreadPoolExecutor(jobs) as pool:
            runs = [pool.submit(self.run, seed) for seed in seeds]
            try:
                return [done.result() for done in track(runs, "training and evaluating")]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for child in self.children:
                    child.kill()
                raise


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
    parser.add_argument("--conf-file", help="settings: a YAML file, or a Python module; None: this package's")
    parser.add_argument("--gym-packages", nargs="+", default=[], help="modules to import that register environments")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument("-f", "--log-folder", type=Path, default=Path("logs"), help="log folder")
    options = parser.parse_args()
    for package in options.gym_packages:
        import_module(package)
    limit = gym.spec(options.env).max_episode_steps
    eval_steps = options.eval_steps or EPISODES * (limit or 1000)
    folder = options.log_folder / "benchmark" / EnvironmentName(options.env)
    benchmark = Benchmark(options.env, folder, options.n_timesteps, eval_steps, options.conf_file, options.gym_packages)
    try:
        results = benchmark.run_all(options.seeds, options.jobs)
    except KeyboardInterrupt:
        sys.exit("Stopped. The same command keeps the seeds that are finished.")
    Console().print(report(options.env, results))
