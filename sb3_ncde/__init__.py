"""Continuous-time memory for Stable-Baselines3: neural controlled differential equation policies.

Importing the package registers its policies with RecurrentPPO, as "NCDEPolicy", "CnnNCDEPolicy" and
"MultiInputNCDEPolicy", and its environments with Gymnasium, under the namespace ``sb3_ncde/``.
"""

from importlib.metadata import version

from sb3_contrib import RecurrentPPO

from sb3_ncde import envs, presets
from sb3_ncde.policies import CnnNCDEPolicy, MultiInputNCDEPolicy, NCDEPolicy

__all__ = ["CnnNCDEPolicy", "MultiInputNCDEPolicy", "NCDEPolicy", "envs", "presets"]
__version__ = version("sb3-ncde")

for _policy in (NCDEPolicy, CnnNCDEPolicy, MultiInputNCDEPolicy):
    RecurrentPPO.policy_aliases[_policy.__name__] = _policy
