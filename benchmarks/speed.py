"""Training speed of NCDEPolicy beside what its users come from, in one process, interleaved.

Each round trains every policy in turn from scratch, so that a change in the machine's speed meets all of them;
the figure to quote is the ratio within a round. Sizes of rollouts and minibatches, epochs and gSDE are those of the RL
Zoo's ppo_lstm.yml for these two tasks; observations and rewards are normalised, for all policies alike.

    python benchmarks/speed.py                       # the figures of the README, about 20 minutes
    python benchmarks/speed.py --rounds 1 --tiny     # whether it runs
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import torch as th
from rich.progress import Progress
from rich.table import Table
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecNormalize
from torch.nn import functional as F

import sb3_ncde  # noqa: F401  (registers policies and environments)

PARTS = ("rollout", "update", "total")


class IdentityPolicy(RecurrentActorCriticPolicy):
    """RecurrentPPO with an encoder that does nothing: the speed that RecurrentPPO itself allows."""

    @staticmethod
    def _process_sequence(
        features: th.Tensor, lstm_states: tuple[th.Tensor, th.Tensor], episode_starts: th.Tensor, lstm: th.nn.LSTM
    ) -> tuple[th.Tensor, th.Tensor]:
        return F.pad(features, (0, lstm.hidden_size - features.shape[1])), lstm_states  # type: ignore[return-value]


@dataclass(frozen=True)
class Task:
    """An environment and the settings of PPO on it."""

    title: str
    env_id: str
    n_envs: int
    ppo: dict[str, Any]


TASKS = {
    "cartpole": Task(
        "CartPole from scratch (short episodes)",
        "sb3_ncde/CartPoleNoVel-v1",
        8,
        dict(n_steps=32, batch_size=256, n_epochs=20, gae_lambda=0.8, gamma=0.98, learning_rate=1e-3),
    ),
    "pendulum": Task(
        "Pendulum (full windows)",
        "sb3_ncde/PendulumNoVel-v1",
        4,
        dict(n_steps=1024, batch_size=128, n_epochs=10, gamma=0.9, learning_rate=1e-3, use_sde=True, sde_sample_freq=4),
    ),
}


def recurrent(
    policy: str | type[RecurrentActorCriticPolicy], **policy_kwargs: Any
) -> Callable[[VecEnv, dict[str, Any]], OnPolicyAlgorithm]:
    """Return what makes RecurrentPPO with a policy of an environment and PPO's settings."""
    return lambda env, ppo: RecurrentPPO(policy, env, policy_kwargs=policy_kwargs, device="cpu", **ppo)


POLICIES: dict[str, Callable[[VecEnv, dict[str, Any]], OnPolicyAlgorithm]] = {
    "NCDEPolicy": recurrent("NCDEPolicy"),
    "MlpLstmPolicy (256 units, as shipped)": recurrent("MlpLstmPolicy"),
    "MlpLstmPolicy (64 units)": recurrent("MlpLstmPolicy", lstm_hidden_size=64),
    "PPO, 8 stacked frames": lambda env, ppo: PPO("MlpPolicy", VecFrameStack(env, 8), device="cpu", **ppo),
    "RecurrentPPO, identity encoder": recurrent(IdentityPolicy, lstm_hidden_size=64),
}


def measure(name: str, task: Task, seed: int, rollouts: int) -> dict[str, float]:
    """Return steps per second of rollout, update and both, after one rollout and update of warm-up."""
    env = VecNormalize(make_vec_env(task.env_id, n_envs=task.n_envs, seed=seed))
    model = POLICIES[name](env, task.ppo | {"seed": seed})
    seconds = dict.fromkeys(PARTS[:2], 0.0)

    def timed(part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            result = method(*args, **kwargs)
            seconds[part] += time.perf_counter() - begin
            return result

        return call

    steps = task.n_envs * model.n_steps
    model.learn(steps)
    model.collect_rollouts = timed("rollout", model.collect_rollouts)  # type: ignore[method-assign]
    model.train = timed("update", model.train)  # type: ignore[method-assign]
    model.learn(rollouts * steps, reset_num_timesteps=False)
    env.close()
    speed = {part: rollouts * steps / spent for part, spent in seconds.items()}
    return speed | {"total": rollouts * steps / sum(seconds.values())}


def report(title: str, rounds: list[dict[str, dict[str, float]]]) -> Table:
    """Return a table: medians over the rounds, and NCDEPolicy's speed as a ratio, (least to most)."""
    table = Table(title=f"{title}: steps per second, median of {len(rounds)} rounds")
    table.add_column("policy")
    for part in PARTS:
        table.add_column(part, justify="right")
    table.add_column("NCDEPolicy's total / this one's (range)", justify="right")
    for name in POLICIES:
        medians = [f"{statistics.median(result[name][part] for result in rounds):,.0f}" for part in PARTS]
        ratios = [result["NCDEPolicy"]["total"] / result[name]["total"] for result in rounds]
        table.add_row(name, *medians, f"{statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print one table per task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rounds", type=int, default=5, help="times that each policy is trained (default: %(default)s)"
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="default: both")
    parser.add_argument("--tiny", action="store_true", help="small rollouts: whether it runs, not how fast")
    options = parser.parse_args(arguments)
    th.set_num_threads(1)
    with Progress() as progress:
        bar = progress.add_task("training", total=options.rounds * len(options.tasks) * len(POLICIES))
        for task in (TASKS[name] for name in options.tasks):
            if options.tiny:
                task = replace(task, ppo=task.ppo | {"n_steps": 16, "batch_size": 64, "n_epochs": 2})
            # CartPole's rollouts are short: several of them, but few enough to remain untrained.
            rollouts = 1 if options.tiny or task.n_envs * task.ppo["n_steps"] > 1024 else 8
            rounds: list[dict[str, dict[str, float]]] = []
            for seed in range(options.rounds):
                rounds.append({})
                for name in POLICIES:
                    rounds[-1][name] = measure(name, task, seed, rollouts)
                    progress.advance(bar)
            progress.console.print(report(task.title, rounds))


if __name__ == "__main__":
    gym.logger.min_level = gym.logger.ERROR
    main()
