"""What a robot has to do: act as PyTorch did, where there is nothing but NumPy.

``python tests/robot.py write FOLDER`` makes agents: one for each of this package's own environments in
``configs/ppo_ncde.yml``, one of SAC, one with images. It exports them, lets the model act in the environment for some
episodes, and writes down what was observed and done; ONNX Runtime has to do the same. ``python tests/robot.py check
FOLDER``, in an environment with NumPy alone, lets the exported agents act on the same observations.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

TOLERANCE = 1e-5
LEARNED = 2048
"""Steps of training: an agent that takes the same action always says nothing."""
LONGEST_IMPORT = 3.0
"""As a multiple of NumPy's own, which is part of it."""
IMPORT = "import time; begin = time.process_time(); import {}; print(time.process_time() - begin)"


def agents(only: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield a name and a model, which has learned until its actions vary.

    :param only: names; none: all
    """
    from sb3_contrib import RecurrentPPO
    from stable_baselines3 import SAC
    from stable_baselines3.common.env_util import make_vec_env

    from sb3_ncde import with_memory
    from sb3_ncde.hyperparams import hyperparams, settings
    from sb3_ncde.normalize import VecNormalizeObserved
    from tests.envs import RandomWalk

    for env_id in hyperparams:
        name = env_id.rpartition("/")[2]
        if env_id.startswith("sb3_ncde/") and (not only or name in only):
            tuned = settings(env_id)
            own = tuned.model | {"n_steps": 256, "batch_size": 64, "n_epochs": 4, "learning_rate": 1e-3}
            env = VecNormalizeObserved(
                make_vec_env(env_id, wrapper_class=tuned.wrapper_class), skip=["time"] if "Irregular" in env_id else []
            )
            yield name, RecurrentPPO(env=env, seed=0, device="cpu", **own).learn(LEARNED)
    if only and "image" not in only:
        return
    images = make_vec_env(RandomWalk, env_kwargs={"observation": "image", "longest": 30})
    cnn = RecurrentPPO("CnnNCDEPolicy", images, n_steps=64, batch_size=64, seed=0, device="cpu")
    yield "image", cnn.learn(256)
    sac = with_memory(SAC, "sb3_ncde/PendulumNoVel-v1", history_length=4, learning_starts=8, seed=0, device="cpu")
    yield "sac", sac.learn(64)


def write(folder: Path, n_episodes: int, only: list[str]) -> None:
    """Export agents, and write down what their models observe and do."""
    from sb3_ncde.deploy.episodes import recorded
    from sb3_ncde.deploy.export import Source, export_numpy, export_onnx
    from sb3_ncde.deploy.onnx_runtime import in_onnx_runtime

    folder.mkdir(parents=True, exist_ok=True)
    for name, model in agents(only):
        export_numpy(model, folder / f"{name}.npz")
        export_onnx(model, folder / f"{name}.onnx")
        source = Source(model, None)
        model.action_space.seed(0)
        # Any actions: what matters is that both observe the same.
        raw = model.get_env().unwrapped.envs[0]
        episodes = recorded(raw, partial(any_action, model.action_space), n_episodes)
        in_pytorch = [outputs["action"] for outputs in source.run(episodes)]
        graph = in_onnx_runtime((folder / f"{name}.onnx").read_bytes(), source.tree)
        compare(f"{name} in ONNX Runtime", in_pytorch, [outputs["action"] for outputs in graph(episodes)])
        shown: dict[str, Any] = {f"observation {key}": values for key, values in episodes.observations.items()}
        np.savez(folder / f"{name}.log", actions=np.array(in_pytorch), starts=episodes.starts, **shown)


def any_action(space: Any, *_: Any) -> Any:
    """Return an action of a space."""
    return space.sample()


def check(folder: Path) -> None:
    """Let exported agents act on what was observed, and compare what they do."""
    from sb3_ncde.deploy import Agent

    taken, numpy_alone = (
        min(float(subprocess.check_output([sys.executable, "-c", IMPORT.format(module)])) for _ in range(3))
        for module in ("sb3_ncde.deploy", "numpy")
    )
    print(
        f"Python {sys.version.split()[0]}, NumPy {np.__version__}: imported in {taken:.3f} s (NumPy {numpy_alone:.3f})"
    )
    assert taken < LONGEST_IMPORT * numpy_alone, (taken, numpy_alone)
    assert not {"torch", "gymnasium", "stable_baselines3"} & sys.modules.keys()
    for log in sorted(folder.glob("*.log.npz")):
        agent = Agent.load(log.with_name(log.name.replace(".log", "")))
        with np.load(log) as file:
            arrays = dict(file)
        shown = {key.partition(" ")[2]: values for key, values in arrays.items() if key.startswith("observation ")}
        done = []
        for step, starts in enumerate(arrays["starts"]):
            agent.reset(starts)
            observation = {key: values[step] for key, values in shown.items()}
            done.append(agent.act(observation if agent.metadata["is_dict"] else observation["observation"]))
        compare(f"{log.name} in NumPy", arrays["actions"], done)


def compare(name: str, expected: Any, found: Any) -> None:
    """Print the largest difference of actions; discrete ones have to be the same."""
    expected, found = np.array(expected), np.array(found)
    assert expected.shape == found.shape
    assert np.ptp(expected, axis=0).max() > 100 * TOLERANCE, f"{name}: all actions are the same, which any agent can do"
    largest = float(np.abs(expected - found).max())
    print(f"{name}: {len(expected)} actions, {len(np.unique(expected))} of them different, largest error {largest:.1e}")
    assert largest <= (TOLERANCE if expected.dtype.kind == "f" else 0), name


def main() -> None:
    """Write agents, or check them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=["write", "check"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--episodes", type=int, default=20, help="of each environment")
    parser.add_argument("--only", nargs="+", default=[], help="environments; with image, SAC as well")
    options = parser.parse_args()
    if options.command == "write":
        write(options.folder, options.episodes, options.only)
    else:
        check(options.folder)


if __name__ == "__main__":
    main()
