"""SAC with memory on a pendulum without its velocity: train, save, load, evaluate, and go on with the same buffer.

python examples/sac.py                  # less than two minutes
python examples/sac.py --steps 200      # whether it runs
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_ncde import HistoryReplayBuffer, VecHistory, with_memory

ENV = "sb3_ncde/PendulumNoVel-v1"


def make_env() -> VecHistory:
    """Return the pendulum as the agent sees it: each observation is the history of the newest four."""
    return VecHistory(make_vec_env(ENV), history_length=4)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, save, load, evaluate, and train on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3_500, help="of training")
    parser.add_argument("--episodes", type=int, default=10, help="of the evaluation")
    parser.add_argument("--output", type=Path, default=Path("runs/sac"), help="folder for what is made")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # the networks are too small to split over cores

    model = with_memory(SAC, make_env(), learning_rate=1e-3, buffer_size=100_000, seed=1, device="cpu", verbose=1)
    assert isinstance(model.replay_buffer, HistoryReplayBuffer)
    print(model.replay_buffer.memory_report())
    model.learn(options.steps)
    model.save(options.output / "agent")
    model.save_replay_buffer(options.output / "buffer")

    # Other algorithms than RecurrentPPO have no state to pass back: the observation is the memory.
    model = SAC.load(options.output / "agent", env=make_env(), device="cpu")
    mean, std = evaluate_policy(model, make_env(), n_eval_episodes=options.episodes)
    print(f"return of {options.episodes} episodes: {mean:.0f} +- {std:.0f}")

    model.load_replay_buffer(options.output / "buffer")
    model.learn(options.steps // 7, reset_num_timesteps=False)
    print(f"In {options.output}: agent.zip, buffer.pkl; {model.num_timesteps} steps of training")


if __name__ == "__main__":
    main()
