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

from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy

from sb3_ncde.arguments import NCDEArguments
from sb3_ncde.cde.encoder import NeuralCDE

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


class SavedPolicy(RecurrentActorCriticPolicy):
    """A policy that is saved with all of its arguments, and has those of a saved one when it takes its weights."""

    arguments: NCDEArguments
    share_features_extractor: bool
    lstm_actor: NeuralCDE  # type: ignore[assignment]
    lstm_critic: NeuralCDE | None  # type: ignore[assignment]
    _given: frozenset[str]
    _least_size = 0  # of the state
    _call: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Keep what a policy, perhaps of a subclass, is made with: :meth:`load_state_dict` may have to make it anew."""
        policy = super().__new__(cls)
        # But for the spaces, which it has, and the schedule, which may be a function that cannot be pickled.
        first = ("observation_space", "action_space", "lr_schedule")
        policy.__dict__["_call"] = (args[3:], {name: value for name, value in kwargs.items() if name not in first})
        return policy

    def _get_constructor_parameters(self) -> dict[str, Any]:
        """Return what :meth:`load` needs to build the same policy."""
        parameters = super()._get_constructor_parameters()
        if self.arguments.net_arch is not None:
            del parameters["net_arch"]
        return parameters | asdict(self.arguments) | {"share_features_extractor": self.share_features_extractor}

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return weights and statistics; the state dict says the policy's arguments in its metadata."""
        state_dict = super().state_dict(*args, **kwargs)
        if not kwargs.get("prefix"):
            write_arguments(state_dict, self.arguments)
        return state_dict

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state dict, of version 0.1.0 as well.

        Arguments that were not given when this policy was made become those of the policy that was saved, so that a
        default of another version does not change an agent.

        :param state_dict: of a policy
        :param strict: whether its keys have to be those of this policy; else it may be a part of one
        :param assign: see PyTorch
        :return: missing and unexpected keys
        """
        if strict:
            arguments = resolve(self.arguments, self._given, read_arguments(state_dict, self._given))
            if arguments != self.arguments:
                self._rebuild(arguments)
        return super().load_state_dict(with_present_keys(state_dict, self.state_dict()), strict, assign)

    def _rebuild(self, arguments: NCDEArguments) -> None:
        """Become a policy of other arguments, with new weights.

        :raises ValueError: if its state needs more room than there is, before anything has changed
        """
        room = self.lstm_actor.hidden_size
        dims = [encoder.history.features_dim for encoder in (self.lstm_actor, self.lstm_critic) if encoder is not None]
        needed = max(arguments.make_history(dim).size for dim in dims)
        if needed > room:
            raise ValueError(
                f"The policy that was saved has a state of size {needed}, but there is room for {room}. Name what its "
                "state holds when you load it: RecurrentPPO.load(..., custom_objects={'policy_kwargs': "
                f"dict(history_length={arguments.history_length}, missing_values={arguments.missing_values}, "
                f"traces={arguments.traces}, ...)}})."
            )
        self._least_size = room
        given, (args, kwargs) = self._given, self._call
        example, training = next(self.parameters()), self.training
        learning_rate = self.optimizer.param_groups[0]["lr"]
        first = (self.observation_space, self.action_space, lambda _: learning_rate)
        names = [field.name for field in fields(arguments) if field.name not in given]
        # Not as arguments of a subclass, which may not take them.
        self.__dict__["_saved"] = {name: getattr(arguments, name) for name in names}
        type(self).__init__(self, *first, *args, **kwargs)
        self._given = given
        self.to(example.device, example.dtype).train(training)
