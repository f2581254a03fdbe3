"""What agents learn where memory is needed: tasks x agents x seeds, each run a process and a file of its own.

NCDEPolicy beside an LSTM, stacked frames, traces and rates, and beside PPO without memory and PPO that sees everything;
SAC with memory beside SAC on stacked frames. All are given the same information. What is compared with what, whose
settings are whose, and which inequalities remain, says ``benchmarks/README.md``.

    python benchmarks/learning.py --list                    # what is left, and how many hours of it
    python benchmarks/learning.py --jobs 2                  # two side by side; goes on with what the folder has
    python benchmarks/learning.py --ablations --jobs 2      # NCDEPolicy with one argument changed
    python benchmarks/learning.py --report docs/learning    # tables and pictures of the files in the folder
    python benchmarks/learning.py --tasks CartPole --agents "PPO, rates" --seeds 0 --steps 512 --episodes 2 \
        --output runs/tiny

It may be killed at any time, and started again, here or on any machine that shares the folder. Of MuJoCo and POPGym,
``pip install mujoco popgym`` for their tasks; of rliable, ``pip install rliable`` for a report.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gymnasium as gym
import torch as th
from claims import claim, claimed
from comparison import plan
from comparison.runs import EPISODES, Run, train
from rich.console import Console
from rich.table import Table

OUTPUT = Path("runs/learning")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""Environment of a run: what it takes is comparable, and two of them do not disturb each other."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line asks for."""
    options = _parser().parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    if options.report is not None:
        from comparison.report import report

        report(options.output, options.report)
        return
    runs = plan.chosen(
        plan.ablations() if options.ablations else plan.comparison(), options.tasks, options.agents, options.seeds
    )
    left = [run for run in runs if not (options.output / run.file).exists()]
    if options.list:
        show(left, len(runs), options.output, options.jobs)
    elif options.here:
        if options.parent is not None:
            threading.Thread(target=end_with, args=(options.parent,), daemon=True).start()
        for run in left:
            train_here(run, options)
    else:
        train_side_by_side(left, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--tasks", nargs="+", choices=plan.NAMES, metavar="TASK", help="default: all")
    parser.add_argument("--agents", nargs="+", metavar="AGENT", help="default: all; --list names them")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="SEED", help="default: 0 to 4, of the headline to 9")
    parser.add_argument("--ablations", action="store_true", help="the runs of the ablations, not of the comparison")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="what is left; nothing is trained")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="write a report to it; nothing is trained")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder of the files (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="of training (default: of the task); to see that it runs")
    parser.add_argument("--episodes", type=int, help="of each evaluation (default: 20, of the last one 100)")
    parser.add_argument("--here", action="store_true", help="train in this process, one after the other")
    parser.add_argument("--parent", type=int, metavar="PID", help="with --here: end when this process has ended")
    return parser


def train_here(run: Run, options: argparse.Namespace) -> None:
    """Train an agent in this process, unless another one does or has done so."""
    th.set_num_threads(1)
    gym.logger.min_level = gym.logger.ERROR
    done = options.output / run.file
    episodes = EPISODES if options.episodes is None else (options.episodes, options.episodes)
    with claim(done) as mine:
        if mine:
            train(run, done, options.steps, episodes)


def train_side_by_side(runs: Sequence[Run], options: argparse.Namespace) -> None:
    """Train agents in processes of their own, and exit with 1 if one of them failed."""
    console = Console(highlight=False)
    failed = []

    def start(run: Run) -> None:
        done = options.output / run.file
        if done.exists() or claimed(done):
            return
        begin = time.perf_counter()
        command = [sys.executable, __file__, "--here", "--parent", str(os.getpid()), "--output", str(options.output)]
        command += ["--tasks", run.task, "--agents", run.agent, "--seeds", str(run.seed)]
        command += ["--ablations"] if options.ablations else []
        for name in ("steps", "episodes"):
            value = getattr(options, name)
            command += [] if value is None else [f"--{name}", str(value)]
        process = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=os.environ | ONE_THREAD)
        took = time.perf_counter() - begin
        console.print(f"{run.task}, {run.agent}, seed {run.seed}: {took:.0f} s, {process.returncode or 'done'}")
        if process.returncode:
            failed.append(run)
            console.print(process.stderr)

    with ThreadPoolExecutor(options.jobs) as pool:
        for _ in pool.map(start, runs):
            pass
    if failed:
        console.print(f"{len(failed)} runs failed: " + "; ".join(run.file for run in failed))
        sys.exit(1)


def show(left: Sequence[Run], n_runs: int, folder: Path, jobs: int) -> None:
    """Print what is left, by task and agent."""
    table = Table("task", "agent", "seeds left", "hours of a core")
    hours = [seconds / 3600 for seconds in plan.seconds(left, folder)]
    for task, agent in dict.fromkeys((run.task, run.agent) for run in left):
        cell = [(run, time) for run, time in zip(left, hours, strict=True) if (run.task, run.agent) == (task, agent)]
        at_work = sum(claimed(folder / run.file) for run, _ in cell)
        seeds = ", ".join(str(run.seed) for run, _ in cell) + (f" ({at_work} at work)" if at_work else "")
        table.add_row(task, agent, seeds, f"{sum(time for _, time in cell):.2f}")
    console = Console(width=140, highlight=False)
    console.print(table)
    console.print(
        f"{n_runs - len(left)} of {n_runs} runs are done; {sum(hours):.1f} hours of a core are left, "
        f"{sum(hours) / jobs:.1f} with {jobs} side by side."
    )


def end_with(parent: int) -> None:
    """End this process when its parent has ended: whoever is started next begins with what is left."""
    while os.getppid() == parent:
        time.sleep(2)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
