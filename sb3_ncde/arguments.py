"""The arguments that NCDEPolicy adds to those of SB3's policies: their names, defaults and checks."""

import difflib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_ncde.cde.arguments import EncoderArguments
from sb3_ncde.history.arguments import HistoryArguments
from sb3_ncde.plain_values import check_integer, check_type

SB3_ARGUMENTS = tuple(inspect.signature(ActorCriticPolicy).parameters)[3:]
"""Of SB3's policies, behind the spaces and the learning rate, in their order."""

_LSTM_ARGUMENTS = {
    "lstm_hidden_size": "latent_size, the size of the latent state",
    "n_lstm_layers": "field_depth, the hidden layers of the vector field",
    "lstm_kwargs": "latent_size, field_width, field_depth, initial_width and initial_depth",
    "shared_lstm": "share_encoder=True",
    "enable_critic_lstm": "share_encoder=False, which gives the critic an encoder of its own",
}


@dataclass(frozen=True, kw_only=True)
class NCDEArguments(EncoderArguments, HistoryArguments):
    """What NCDEPolicy accepts beside SB3's own arguments; all are plain YAML values, checked on construction.

    :param share_encoder: true: one encoder for actor and critic, and both gradients flow into it. false: each has its
        own. null: as SB3's ``share_features_extractor``
    :param value_width: units of each hidden layer of the critic's head. Width and depth of the heads are another way to
        say ``net_arch``; if one of the four is given, the others are 64 units, 2 layers
    :param value_depth: hidden layers of the critic's head
    :param action_width: units of each hidden layer of the actor's head
    :param action_depth: hidden layers of the actor's head
    :param action_mask_key: key of a Dict observation that holds the mask of the allowed actions
    :param critic_keys: keys of a Dict observation that only the critic sees, such as the state of a simulator. They
        need not be in the observation when the agent acts (``predict``)
    :param critic_encoder: with ``critic_keys``: whether the critic has an encoder of its own. false: it sees the newest
        observation alone
    :raises TypeError: for a value of another type
    :raises ValueError: for a value out of range
    """

    share_encoder: bool | None = None
    value_width: int | None = None
    value_depth: int | None = None
    action_width: int | None = None
    action_depth: int | None = None
    action_mask_key: str | None = None
    critic_keys: Sequence[str] | None = None
    critic_encoder: bool = True

    def __post_init__(self) -> None:
        """Check every value."""
        HistoryArguments.__post_init__(self)
        EncoderArguments.__post_init__(self)
        for name in ("value_width", "action_width"):
            check_integer(name, getattr(self, name), minimum=1, optional=True)
        for name in ("value_depth", "action_depth"):
            check_integer(name, getattr(self, name), minimum=0, optional=True)
        check_type("share_encoder", self.share_encoder, bool | None, "true, false or null")
        check_type("action_mask_key", self.action_mask_key, str | None, "a key of a Dict observation")
        self._check_critic()
        ages = self.missing_values and self.path_in_field
        if self.time_key is not None and not (self.time_channel or self.rates or self.skip or ages):
            raise ValueError(
                f"time_key={self.time_key!r} with time_channel=False, rates=False and skip=False: the agent would not "
                "see the time. Leave time_channel=True."
            )

    def _check_critic(self) -> None:
        keys = self.critic_keys
        check_type("critic_encoder", self.critic_encoder, bool, "true or false")
        if keys is None:
            if not self.critic_encoder:
                raise ValueError(
                    "critic_encoder=False without critic_keys: a critic that sees no more than the actor needs its "
                    "memory as well. Name the keys of the observation that only the critic sees in critic_keys."
                )
            return
        if isinstance(keys, str) or not isinstance(keys, Sequence) or not all(isinstance(key, str) for key in keys):
            raise TypeError(f"critic_keys must be a list of keys of a Dict observation or null, not {keys!r}.")
        object.__setattr__(self, "critic_keys", list(keys))  # as YAML and a saved policy have it
        clash = set(keys) & {self.time_key, self.action_mask_key}
        if not keys or clash:
            raise ValueError(
                f"critic_keys={list(keys)}: name at least one key that only the critic sees; the time and the action "
                "mask are the actor's too."
            )
        if self.share_encoder:
            raise ValueError(
                "share_encoder=True with critic_keys: one encoder cannot read what actor and critic each see. Leave "
                "share_encoder out."
            )

    @property
    def net_arch(self) -> dict[str, list[int]] | None:
        """The hidden layers of the heads as SB3's ``net_arch``, or None where none of their sizes is given.

        What is not given is as SB3 has it, 64 units and 2 layers.
        """
        heads = {"pi": (self.action_width, self.action_depth), "vf": (self.value_width, self.value_depth)}
        if all(size is None for head in heads.values() for size in head):
            return None
        return {
            head: [64 if width is None else width] * (2 if depth is None else depth)
            for head, (width, depth) in heads.items()
        }


def split_arguments(policy: str, kwargs: Mapping[str, Any]) -> tuple[NCDEArguments, dict[str, Any]]:
    """Return the NCDE's arguments among the keyword arguments of a policy, and those that go to SB3.

    :param policy: name of the policy class, for messages
    :raises TypeError: for an argument of the LSTM policies, or one that nobody knows
    :raises ValueError: for two that contradict each other
    """
    ours = {field.name for field in fields(NCDEArguments)}
    sb3 = set(SB3_ARGUMENTS)
    for name in kwargs:
        if name in _LSTM_ARGUMENTS:
            raise TypeError(f"{policy} has no LSTM, so no {name}; use {_LSTM_ARGUMENTS[name]}.")
        if name not in ours | sb3:
            raise TypeError(f"{policy} got an unexpected argument {name!r}.{_suggestion(name, ours | sb3)}")
    plain = {name: _plain(value) for name, value in kwargs.items() if name in ours}
    arguments = NCDEArguments(**plain)
    sb3_kwargs = {name: value for name, value in kwargs.items() if name not in ours}
    if arguments.net_arch is not None:
        if sb3_kwargs.get("net_arch") is not None:
            raise ValueError(
                f"net_arch={sb3_kwargs['net_arch']} beside value_width, value_depth, action_width or action_depth, "
                f"which say net_arch={arguments.net_arch}: give one or the other."
            )
        sb3_kwargs["net_arch"] = arguments.net_arch
    if arguments.critic_keys is not None and sb3_kwargs.setdefault("share_features_extractor", False):
        raise ValueError(
            "share_features_extractor=True with critic_keys: one extractor cannot read what actor and critic each see. "
            "Leave share_features_extractor out."
        )
    if arguments.share_encoder and not sb3_kwargs.get("share_features_extractor", True):
        raise ValueError(
            "share_encoder=True with share_features_extractor=False: one encoder cannot read the features of two "
            "extractors. Leave share_encoder out to have two of each."
        )
    return arguments, sb3_kwargs


def _plain(value: Any) -> Any:
    """Return a value as Python's own type of it: of NumPy's numbers, enumerations, numbers of YAML libraries."""
    if isinstance(value, np.generic):
        value = value.item()
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, str):
        return str.__str__(value)
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _suggestion(name: str, valid: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f" Did you mean {nearest[0]!r}?" if nearest else f" It takes {', '.join(sorted(valid))}."
