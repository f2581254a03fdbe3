"""What a saved policy says of itself: its version and all of its arguments, and how files of before are read.

SB3 saves only the ``policy_kwargs`` that a user gave. Were a default of this package to change, every agent saved
before would silently change with it. So the state dict of a policy says its arguments as well. They stand in the state
dict's metadata, which PyTorch saves with it, and not among its values: who averages these, or adds noise to them, means
the numbers.
"""

import re
import warnings
from collections import OrderedDict
from collections.abc import Container, Mapping
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from typing import Any

from sb3_ncde.arguments import NCDEArguments

DEFAULTS_0_1_0: dict[str, Any] = {
    "latent_size": 16,
    "field_width": 32,
    "field_depth": 1,
    "initial_width": 32,
    "initial_depth": 1,
    "history_length": 8,
    "hop_length": None,
    "dt": 1.0,
    "time_key": None,
    "time_kind": "elapsed",
    "missing_values": False,
    "solver": "midpoint",
    "solver_steps": 1,
    "rtol": 1e-4,
    "atol": 1e-6,
    "adjoint": False,
    "interpolation": "linear",
    "time_channel": True,
    "scale_increments": True,
    "rates": True,
    "path_in_field": True,
    "feature_size": None,
    "feature_norm": "layer_norm",
    "skip": True,
    "share_encoder": None,
    "control_size": 32,
    "value_width": None,
    "value_depth": None,
    "action_width": None,
    "action_depth": None,
    "action_mask_key": None,
}
"""Of agents of version 0.1.0, which do not say."""
LONGEST_DEFAULT_HISTORY = 8
"""The greatest ``history_length`` that was the default of any version."""


def write_arguments(state_dict: Any, arguments: NCDEArguments) -> None:
    """Write version and arguments into the metadata of a policy's state dict."""
    state_dict._metadata[""] |= {"sb3_ncde": version("sb3-ncde"), "arguments": asdict(arguments)}


def read_arguments(state_dict: Mapping[str, Any], given: Container[str]) -> dict[str, Any]:
    """Return the arguments of a saved policy; none where a state dict does not say, as one that was put together.

    :param state_dict: of a policy
    :param given: names of those that the policy which is to take it was made with
    :raises ValueError: for one of a later version, with arguments that this one does not have
    """
    metadata = getattr(state_dict, "_metadata", {}).get("", {})
    if "arguments" not in metadata:
        if "lstm_actor.increment_scale.updated" not in state_dict:
            return {}
        return {name: value for name, value in DEFAULTS_0_1_0.items() if name not in given}
    arguments: dict[str, Any] = metadata["arguments"]
    unknown = sorted(arguments.keys() - {field.name for field in fields(NCDEArguments)})
    if unknown:
        raise ValueError(
            f"The policy was saved by sb3_ncde {metadata['sb3_ncde']} with the arguments {', '.join(unknown)}, which "
            f"this version, {version('sb3-ncde')}, does not have: install that version or a later one."
        )
    return arguments


def resolve(arguments: NCDEArguments, given: Container[str], saved: Mapping[str, Any]) -> NCDEArguments:
    """Return the arguments with which saved weights act as they did, and warn of those that were given otherwise.

    :param arguments: of the policy that is to take the weights
    :param given: names of those that it was made with; the others are defaults, and give way
    :param saved: of :func:`read_arguments`
    """
    differ = {name: value for name, value in saved.items() if value != getattr(arguments, name)}
    meant = [name for name in differ if name in given]
    kept = [f"{name}={getattr(arguments, name)!r} (saved: {differ[name]!r})" for name in meant]
    if kept:
        warnings.warn(
            f"The policy that was saved had other arguments than this one: {', '.join(kept)}. Its weights may mean "
            "something else with these. Make this policy with the saved arguments, unless the difference is meant.",
            stacklevel=4,
        )
    return replace(arguments, **{name: value for name, value in differ.items() if name not in given})


def with_present_keys(state_dict: Mapping[str, Any], keys: Container[str]) -> dict[str, Any]:
    """Return a state dict with the keys of the present version: until 0.1.0 extractors were wrapped in another.

    :param state_dict: of a policy
    :param keys: of the policy that is to take it
    """
    old = re.compile(r"^((?:pi_|vf_)?features_extractor)\.extractor\.")
    renamed = ((key if key in keys else old.sub(r"\1.", key), value) for key, value in state_dict.items())
    present: Any = OrderedDict(renamed)
    present._metadata = getattr(state_dict, "_metadata", None)
    return present  # type: ignore[no-any-return]
