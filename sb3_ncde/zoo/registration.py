"""What the RL Zoo is told: the algorithm ``ppo_ncde``, its sampler, its experiment manager, its normalisation."""

from typing import Any

from sb3_contrib import RecurrentPPO
from stable_baselines3.common.policies import BasePolicy

from sb3_ncde.policies import NCDEPolicy

ALGO = "ppo_ncde"
"""The algorithm's name in the RL Zoo: of log folders, in plots and on the hub."""
POLICIES = (
    "Say policy: sb3_ncde.NCDEPolicy for vectors, sb3_ncde.CnnNCDEPolicy for images, sb3_ncde.MultiInputNCDEPolicy for "
    "a Dict."
)


class PPONCDE(RecurrentPPO):
    """RecurrentPPO under a name of its own, so that logs and plots do not mix with those of LSTM policies.

    :raises ValueError: for another policy than an NCDEPolicy, whether it is new or loaded
    """

    def learn(self, total_timesteps: int, callback: Any = None, **kwargs: Any) -> "PPONCDE":  # type: ignore[override]
        """Learn as RecurrentPPO does, with TensorBoard runs under this algorithm's name."""
        return super().learn(total_timesteps, callback, **({"tb_log_name": "PPONCDE"} | kwargs))

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            raise ValueError(f"There is no policy {policy_name!r}. {POLICIES}")
        return super()._get_policy_from_name(policy_name)

    def _setup_model(self) -> None:
        if not issubclass(self.policy_class, NCDEPolicy):
            aliases = [alias for alias, policy in self.policy_aliases.items() if policy is self.policy_class]
            name = (*aliases, self.policy_class.__name__)[0]
            raise ValueError(
                f"The policy is {name}, but ppo_ncde trains NCDEPolicy. {POLICIES} Or train this one under its own "
                "name, with --algo ppo_lstm."
            )
        super()._setup_model()


def register() -> None:
    """Make ``ppo_ncde`` known to the RL Zoo in this process.

    The RL Zoo has no hook for algorithms of others: its tables are extended, as its documentation does it for SBX, and
    its command ``train`` is given an experiment manager that serves ``ppo_ncde``, and the entries with memory of other
    algorithms.

    :raises ImportError: without the extra ``zoo``
    """
    import rl_zoo3.train
    from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
    from rl_zoo3.utils import ALGOS

    from sb3_ncde.zoo.experiment import experiment_manager
    from sb3_ncde.zoo.sampler import convert_ppo_ncde_params, sample_ppo_ncde_params

    ALGOS[ALGO] = PPONCDE
    HYPERPARAMS_SAMPLER[ALGO] = sample_ppo_ncde_params
    HYPERPARAMS_CONVERTER[ALGO] = convert_ppo_ncde_params  # type: ignore[assignment]
    vars(rl_zoo3.train)["ExperimentManager"] = experiment_manager


def observed(**kwargs: Any) -> dict[str, Any]:
    """Let the stock RL Zoo normalise as ``sb3-ncde`` does in this process, by VecNormalizeObserved.

    It is for ``normalize:`` of an entry, as ``"importlib.import_module('sb3_ncde.zoo').observed()"``: the RL Zoo takes
    Python code there, whose value it passes to its VecNormalize. That of SB3 would turn all statistics to NaN with the
    first missing value. No other words of an entry reach it: a wrapper of environments lies inside it, and what it
    knows is neither saved nor found again by ``rl_zoo3.enjoy``.

    :param kwargs: arguments of VecNormalizeObserved, ``skip=['time']`` for example
    """
    import rl_zoo3.exp_manager

    from sb3_ncde.envs.normalization import VecNormalizeObserved

    vars(rl_zoo3.exp_manager)["VecNormalize"] = VecNormalizeObserved
    return kwargs
