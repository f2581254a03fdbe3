"""The RL Zoo's algorithm ``ppo_ncde``: RecurrentPPO with NCDEPolicy, tuned by a sampler that knows the policy.

The stock RL Zoo trains these policies as ``ppo_lstm``, and other algorithms with memory, with nothing from here. What
is here is for the command ``sb3-ncde``, and for scripts that call :func:`register` before ``rl_zoo3.train.train()``. It
needs the extra ``zoo``.
"""

from sb3_ncde.zoo.registration import ALGO, POLICIES, PPONCDE, observed, register

__all__ = ["ALGO", "POLICIES", "PPONCDE", "observed", "register"]
