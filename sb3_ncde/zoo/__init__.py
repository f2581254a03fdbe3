"""The RL Zoo's algorithm ``ppo_ncde``: RecurrentPPO with NCDEPolicy, tuned by a sampler that knows the policy.

The stock RL Zoo trains these policies as ``ppo_lstm`` with nothing from here. What is here is for the command
``sb3-ncde``, and for scripts that call :func:`register` before ``rl_zoo3.train.train()``. It needs the extra ``zoo``.
"""

from typing import Any

from sb3_contrib import RecurrentPPO

ALGO = "ppo_ncde"
"""The algorithm's name in the RL Zoo: of log folders, in plots and on the hub."""


class PPONCDE(RecurrentPPO):
    """RecurrentPPO under a name of its own, so that logs and plots do not mix with those of LSTM policies."""

    def learn(self, total_timesteps: int, callback: Any = None, **kwargs: Any) -> "PPONCDE":  # type: ignore[override]
        """Learn as RecurrentPPO does, with TensorBoard runs under this algorithm's name."""
        return super().learn(total_timesteps, callback, **({"tb_log_name": "PPONCDE"} | kwargs))


def register() -> None:
    """Make ``ppo_ncde`` known to the RL Zoo in this process.

    The RL Zoo has no hook for algorithms of others: its tables are extended, as its documentation does it for SBX, and
    its command ``train`` is given an experiment manager that serves ``ppo_ncde`` and leaves other algorithms alone.

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
