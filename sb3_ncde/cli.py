"""The command ``sb3-ncde``: the RL Zoo's commands with the defaults of this package, and its benchmark."""

import argparse
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import torch as th

INSTALL = "in a clone of this package: pip install '.[zoo]'"
EXTRA = {
    "matplotlib",
    "moviepy",
    "ndonnx",
    "onnx",
    "onnxruntime",
    "optuna",
    "psycopg",
    "pygame",
    "requests",
    "rl_zoo3",
    "seaborn",
    "tensorboard",
}
"""Modules that it brings."""


def train() -> None:
    """Train an agent."""
    from rl_zoo3.train import train as rl_zoo3_train

    _own_options("--no-progress", action="store_true")
    rl_zoo3_train()


def enjoy() -> None:
    """Watch an agent."""
    from rl_zoo3.enjoy import enjoy as rl_zoo3_enjoy

    _own_options("--no-progress", action="store_true")
    rl_zoo3_enjoy()


def tune() -> None:
    """Take part in a study."""
    from sb3_ncde.zoo.experiment import NCDEExperimentManager

    NCDEExperimentManager.heartbeat_interval = _own_options("--heartbeat", type=int)
    NCDEExperimentManager.n_confirmed = _own_options("--confirm", type=int, default=0)
    NCDEExperimentManager.n_confirming_seeds = _own_options("--confirm-seeds", type=int)
    algo = _own_options("--algo")
    if NCDEExperimentManager.n_confirmed and algo != "ppo_ncde":
        sys.exit(
            f"sb3-ncde tune: --confirm is for ppo_ncde, but --algo is {algo}: train the best trials again yourself."
        )
    sys.argv[1:1] = ["--algo", algo]  # in front, as the last one counts
    sys.argv.append("-optimize")
    train()


def plot() -> None:
    """Draw learning curves to a file."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from rl_zoo3.plots.plot_train import plot_train

    output = _own_options("-o", "--output", type=Path)
    # As the RL Zoo names the folders of environments.
    sys.argv[1:] = [option.replace("/", "-") if option in gym.registry else option for option in sys.argv[1:]]
    plot_train()  # type: ignore[no-untyped-call]
    if not plt.gca().lines:
        sys.exit("There is nothing to draw: no run with as many episodes as --episode-window in the log folder.")
    output.parent.mkdir(parents=True, exist_ok=True)
    plt.savefig(output, dpi=150)
    print(f"Saved to {output}")


def record_video() -> None:
    """Record an agent."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws to memory
    for package in _own_options("--gym-packages", nargs="+", default=[]):
        import_module(package)
    runpy.run_module("rl_zoo3.record_video", run_name="__main__")


def benchmark() -> None:
    """Train several seeds and report what they reached."""
    from sb3_ncde.zoo.benchmark import main as benchmark_main

    benchmark_main()


def export() -> None:
    """Write a trained agent to one file."""
    from sb3_ncde.zoo.export import main as export_main

    export_main()


def hub() -> None:
    """Make a folder of a trained agent for the Hugging Face hub."""
    from sb3_ncde.zoo.hub import main as hub_main

    hub_main()


def _own_options(*names: str, **kwargs: Any) -> Any:
    """Take an option that the RL Zoo's command does not have from the command line, and return its value."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(*names, dest="value", **kwargs)
    options, sys.argv[1:] = parser.parse_known_args(sys.argv[1:])
    return options.value


class Command(NamedTuple):
    """A subcommand.

    :param run: does it, with the options in ``sys.argv``
    :param summary: what it does
    :param defaults: names of an option, and its value, for where the command line does not give it
    :param examples: options worth showing
    :param more: options that the RL Zoo's own help does not show
    """

    run: Callable[[], None]
    summary: str
    defaults: tuple[tuple[str, ...], ...]
    examples: tuple[str, ...]
    more: str = ""


# In these tuples the last entry is the value; for a flag it is the empty string.
_COMMON = (("--algo", "ppo_ncde"), ("--device", "cpu"), ("--num-threads", "1"))
_PROGRESS = ("--no-progress", "--progress", "-P", "")
_NO_PROGRESS = "  --no-progress         without the progress bar\n"

COMMANDS = {
    "train": Command(
        train,
        "train an agent, evaluate it while it learns, and save it. Ctrl-C ends training early and saves the agent",
        (*_COMMON, ("-f", "--log-folder", "logs"), _PROGRESS),
        (
            "--env CartPoleNoVel-v1",
            "--env PendulumNoVel-v1 --seed 1 --save-freq 20000 --tensorboard-log tb",
            "--env CartPoleNoVel-v1 -params policy_kwargs:'dict(history_length=16)' learning_rate:0.0005",
            "--env CartPoleNoVel-v1 -i logs/ppo_ncde/CartPoleNoVel-v1_1/CartPoleNoVel-v1.zip",
        ),
        _NO_PROGRESS,
    ),
    "enjoy": Command(
        enjoy,
        "watch a trained agent",
        (*_COMMON, ("-f", "--folder", "logs"), _PROGRESS),
        ("--env CartPoleNoVel-v1", "--env CartPoleNoVel-v1 --load-best --no-render -n 5000"),
        _NO_PROGRESS,
    ),
    "tune": Command(
        tune,
        "search for hyperparameters. The same command goes on with a study, and on another machine joins it",
        (
            *_COMMON,
            ("-f", "--log-folder", "logs"),
            ("--n-trials", "--max-total-trials", "100"),
            ("--n-evaluations", "4"),
            ("--eval-episodes", "20"),
            ("--heartbeat", "30"),
            ("--confirm-seeds", "3"),
        ),
        (
            "--env PendulumNoVel-v1 --max-total-trials 50",
            "--env PendulumNoVel-v1 --max-total-trials 50 --confirm 5",
            "--env PendulumNoVel-v1 --study-name pendulum --storage postgresql://user:password@host/database",
        ),
        "  --heartbeat SECONDS   between two signs of life; after three without, a worker's trial is another's\n"
        "  --confirm K           once the study has its trials, train its best K settings again with fresh seeds, and\n"
        "                        let best_trial.yml be the one with the best mean. Each trains for the n_timesteps of\n"
        "                        the configuration: -n is for trials alone, -params n_timesteps:N for both. Workers\n"
        "                        that are started with --confirm share this\n"
        "  --confirm-seeds N     of each of them\n",
    ),
    "plot": Command(
        plot,
        "draw learning curves to a file",
        (
            ("-a", "--algo", "ppo_ncde"),
            ("-f", "--exp-folder", "logs"),
            ("-w", "--episode-window", "10"),
            ("-o", "--output", "learning_curves.png"),
        ),
        ("--env CartPoleNoVel-v1", "--env CartPoleNoVel-v1 PendulumNoVel-v1 -w 100 -o curves.png"),
        "  -o, --output FILE     the picture\n",
    ),
    "record-video": Command(
        record_video,
        "record a trained agent to an mp4 file",
        (("--algo", "ppo_ncde"), ("-f", "--folder", "logs")),
        ("--env CartPoleNoVel-v1 -n 500",),
        "  --gym-packages ...    modules to import that register environments\n",
    ),
    "benchmark": Command(
        benchmark,
        "train several seeds, evaluate each for 100 episodes or more, and report mean, spread and worst seed",
        (),
        ("--env CartPoleNoVel-v1", "--env PendulumNoVel-v1 --seeds 0 1 2 --jobs 2"),
    ),
    "export": Command(
        export,
        "write a trained agent to one file, for ONNX Runtime or NumPy alone, once it has been compared with PyTorch",
        (),
        ("--env CartPoleNoVel-v1", "--env PendulumNoVel-v1 --algo sac --format numpy -o pendulum.npz"),
    ),
    "hub": Command(
        hub,
        "make a model card and the files of a trained agent for the Hugging Face hub, and say how to upload them",
        (),
        ("--env CartPoleNoVel-v1 -orga NAME",),
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a subcommand.

    :param arguments: its name and options; None: those of the command line
    """
    name, *options = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print(_overview())
        return
    if name not in COMMANDS:
        sys.exit(f"sb3-ncde: {name!r} is not one of {', '.join(COMMANDS)}.")
    if find_spec("rl_zoo3") is None:
        sys.exit(f"sb3-ncde {name} runs the RL Zoo, which is not installed. It comes with the extra zoo; {INSTALL}")
    command = COMMANDS[name]
    if {"-h", "--help"} & set(options):
        print(_help(name, command), flush=True)
    # The last of an option's values counts, so the defaults come first.
    sys.argv = [f"sb3-ncde {name}", *_missing(command.defaults, options), *options]
    th.set_num_threads(1)  # the networks are too small to split over cores
    _find_modules_of_this_folder()
    try:
        _run(name, command)
    except KeyboardInterrupt:
        sys.exit(f"sb3-ncde {name}: interrupted before there was anything to save.")
    except ImportError as error:
        if (error.name or "").split(".")[0] not in EXTRA:
            raise
        sys.exit(f"sb3-ncde {name}: {error}. Everything that it needs comes with the extra zoo; {INSTALL}")


def _find_modules_of_this_folder() -> None:
    """Let Python import what lies in the current folder, as it does for ``python -m``, unless it is told not to."""
    folder = str(Path.cwd())
    if folder not in sys.path and not getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, folder)


def _run(name: str, command: Command) -> None:
    """Run a subcommand, and end with one sentence where the user has made a mistake."""
    from sb3_ncde.zoo import register
    from sb3_ncde.zoo.mistakes import sentence_of

    try:
        register()
        command.run()
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        sys.exit(f"sb3-ncde {name}: {sentence}")


def _missing(defaults: Sequence[tuple[str, ...]], options: Sequence[str]) -> list[str]:
    """Return the defaults of the options that are not given, as a command line has them."""
    given = {option.split("=")[0] for option in options}
    return [part for *names, value in defaults if not given & set(names) for part in (names[-1], value) if part]


def _overview() -> str:
    lines = "\n".join(f"  {name:<13} {command.summary.split('.')[0]}" for name, command in COMMANDS.items())
    return (
        f"usage: sb3-ncde COMMAND [OPTIONS]\n\nThe RL Zoo for agents with NCDEPolicy.\n\n{lines}\n\n"
        "sb3-ncde COMMAND --help shows the options of each."
    )


def _help(name: str, command: Command) -> str:
    """Return what stands above the RL Zoo's own help of its options."""
    examples = "\n".join(f"  sb3-ncde {name} {example}" for example in command.examples)
    defaults = " ".join(_missing(command.defaults, []))
    more = command.more and f"\nbeside the options below:\n{command.more}"
    return f"sb3-ncde {name}: {command.summary}.\n\n{examples}\n\ndefaults: {defaults or 'as below'}\n{more}"


if __name__ == "__main__":
    main()
