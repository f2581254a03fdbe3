"""The arguments that NCDEPolicy adds to those of SB3's policies: their names, defaults and checks."""

import difflib
import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from decimal import Decimal, InvalidOperation
from types import UnionType
from typing import Any, get_args

import numpy as np
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_ncde.encoder import FEATURE_NORMS, NeuralCDE
from sb3_ncde.history import ObservationHistory
from sb3_ncde.interpolation import INTERPOLATIONS
from sb3_ncde.solvers import ADAPTIVE_SOLVERS, SOLVERS

TIME_KINDS = ("elapsed", "timestamp")

_LSTM_ARGUMENTS = {
    "lstm_hidden_size": "latent_size, the size of the latent state",
    "n_lstm_layers": "field_depth, the hidden layers of the vector field",
    "lstm_kwargs": "latent_size, field_width, field_depth, initial_width and initial_depth",
    "shared_lstm": "share_encoder=True",
    "enable_critic_lstm": "share_encoder=False, which gives the critic an encoder of its own",
}


@dataclass(frozen=True)
class NCDEArguments:
    """What NCDEPolicy accepts beside SB3's own arguments; all are plain YAML values, checked on construction.

    :raises TypeError: for a value of another type
    :raises ValueError: for a value out of range
    """

    latent_size: int = 16
    field_width: int = 32
    field_depth: int = 1
    initial_width: int = 32
    initial_depth: int = 1
    history_length: int = 8
    hop_length: int | None = None
    dt: float = 1.0
    time_key: str | int | None = None
    time_kind: str = "elapsed"
    solver: str = "midpoint"
    solver_steps: int = 1
    rtol: float = 1e-4
    atol: float = 1e-6
    adjoint: bool = False
    interpolation: str = "linear"
    missing_values: bool = False
    time_channel: bool = True
    scale_increments: bool = True
    rates: bool = True
    path_in_field: bool = True
    feature_size: int | None = None
    feature_norm: str = "layer_norm"
    skip: bool = True
    share_encoder: bool | None = None
    control_size: int | None = 32
    value_width: int | None = None
    value_depth: int | None = None
    action_width: int | None = None
    action_depth: int | None = None
    action_mask_key: str | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("latent_size", "field_width", "initial_width", "history_length", "solver_steps"):
            _check_integer(name, getattr(self, name), minimum=1)
        for name in ("field_depth", "initial_depth"):
            _check_integer(name, getattr(self, name), minimum=0)
        for name in ("hop_length", "control_size", "feature_size", "value_width", "action_width"):
            _check_integer(name, getattr(self, name), minimum=1, optional=True)
        for name in ("value_depth", "action_depth"):
            _check_integer(name, getattr(self, name), minimum=0, optional=True)
        for name in ("rates", "path_in_field", "skip", "adjoint", "time_channel", "scale_increments", "missing_values"):
            _check_type(name, getattr(self, name), bool, "true or false")
        _check_type("share_encoder", self.share_encoder, bool | None, "true, false or null")
        _check_type("time_key", self.time_key, str | int | None, "a key of a Dict or a column of a Box observation")
        _check_choice("time_kind", self.time_kind, TIME_KINDS)
        _check_type("action_mask_key", self.action_mask_key, str | None, "a key of a Dict observation")
        _check_choice("solver", self.solver, (*SOLVERS, *ADAPTIVE_SOLVERS))
        _check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        _check_choice("feature_norm", self.feature_norm, FEATURE_NORMS)
        _check_positive("dt", self.dt, "the time between two observations")
        for name in ("rtol", "atol"):
            _check_positive(name, getattr(self, name), "the tolerance of an adaptive solver")
        if self.feature_norm == "layer_norm" and (self.feature_size or self.latent_size) < 3:
            name = "latent_size" if self.feature_size is None else "feature_size"
            raise ValueError(
                f"{name}={getattr(self, name)} with feature_norm='layer_norm': the norm leaves nothing of fewer than "
                "3 numbers; use feature_norm='tanh'."
            )
        self._check_solver()
        ages = self.missing_values and self.path_in_field
        if self.time_key is not None and not (self.time_channel or self.rates or self.skip or ages):
            raise ValueError(
                f"time_key={self.time_key!r} with time_channel=False, rates=False and skip=False: the agent would not "
                "see the time. Leave time_channel=True."
            )
        if self.hop > self.history_length:
            raise ValueError(
                f"hop_length={self.hop} is more than history_length={self.history_length}: "
                "a full window of history_length observations cannot drop hop_length of them."
            )

    def _check_solver(self) -> None:
        if self.interpolation == "hermite" and self.solver in SOLVERS and self.solver != "rk4":
            raise ValueError(
                f"solver={self.solver!r} with interpolation='hermite': on a cubic path with one step per observation, "
                "euler uses the increment before the newest one, midpoint and heun weigh both; the agent would act "
                "late. Use solver='rk4', an adaptive one, or interpolation='linear'."
            )
        if self.interpolation == "rectilinear" and not self.time_channel:
            raise ValueError(
                "interpolation='rectilinear' with time_channel=False: a rectilinear path moves time before values, so "
                "time must be one of its channels; without it the path is that of interpolation='linear'."
            )
        if self.adjoint and self.solver in SOLVERS:
            raise ValueError(
                f"adjoint=True with solver={self.solver!r}: fixed solvers are backpropagated through directly; the "
                f"adjoint is for the adaptive ones ({', '.join(ADAPTIVE_SOLVERS)})."
            )
        if self.solver_steps > 1 and self.solver in ADAPTIVE_SOLVERS:
            raise ValueError(
                f"solver_steps={self.solver_steps} with solver={self.solver!r}: an adaptive solver chooses its steps "
                "itself; its accuracy is set by rtol and atol."
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

    @property
    def hop(self) -> int:
        """``hop_length``, or half of ``history_length`` where it is None."""
        return max(1, self.history_length // 2) if self.hop_length is None else self.hop_length

    def make_encoder(self, features_dim: int) -> NeuralCDE:
        """Return an encoder of these sizes for observations of D = ``features_dim`` features."""
        observed = self.time_key is not None
        history = ObservationHistory(
            self.history_length,
            self.hop,
            features_dim,
            unit=self.dt if observed else 1.0,
            timestamps=observed and self.time_kind == "timestamp",
            missing_values=self.missing_values,
        )
        accepted = inspect.signature(NeuralCDE).parameters
        sizes = {name: value for name, value in asdict(self).items() if name in accepted}
        return NeuralCDE(history, time_scale=1.0 if observed else self.dt, **sizes)


def split_arguments(policy: str, kwargs: Mapping[str, Any]) -> tuple[NCDEArguments, dict[str, Any]]:
    """Return the NCDE's arguments among the keyword arguments of a policy, and those that go to SB3.

    :param policy: name of the policy class, for messages
    :raises TypeError: for an argument of the LSTM policies, or one that nobody knows
    :raises ValueError: for two that contradict each other
    """
    ours = {field.name for field in fields(NCDEArguments)}
    sb3 = set(inspect.signature(ActorCriticPolicy).parameters)
    for name in kwargs:
        if name in _LSTM_ARGUMENTS:
            raise TypeError(f"{policy} has no LSTM, so no {name}; use {_LSTM_ARGUMENTS[name]}.")
        if name not in ours | sb3:
            raise TypeError(f"{policy} got an unexpected argument {name!r}.{_suggestion(name, ours | sb3)}")
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in kwargs.items()}
    arguments = NCDEArguments(**{name: value for name, value in plain.items() if name in ours})
    sb3_kwargs = {name: value for name, value in kwargs.items() if name not in ours}
    if arguments.net_arch is not None:
        if sb3_kwargs.get("net_arch") is not None:
            raise ValueError(
                f"net_arch={sb3_kwargs['net_arch']} beside value_width, value_depth, action_width or action_depth, "
                f"which say net_arch={arguments.net_arch}: give one or the other."
            )
        sb3_kwargs["net_arch"] = arguments.net_arch
    if arguments.share_encoder and not sb3_kwargs.get("share_features_extractor", True):
        raise ValueError(
            "share_encoder=True with share_features_extractor=False: one encoder cannot read the features of two "
            "extractors. Leave share_encoder out to have two of each."
        )
    return arguments, sb3_kwargs


def _suggestion(name: str, valid: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f" Did you mean {nearest[0]!r}?" if nearest else f" It takes {', '.join(sorted(valid))}."


def _check_integer(name: str, value: Any, minimum: int, optional: bool = False) -> None:
    _check_type(name, value, int | None if optional else int, "an integer or null" if optional else "an integer")
    if value is not None and value < minimum:
        raise ValueError(f"{name}={value}: expected at least {minimum}.")


def _check_positive(name: str, value: Any, meaning: str) -> None:
    _check_type(name, value, int | float, f"a number, {meaning}{_yaml_hint(value)}")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}={value}: {meaning} must be finite and above 0.")


def _yaml_hint(value: object) -> str:
    """Return how a text that stands for a number is written in YAML."""
    try:
        number = Decimal(value) if isinstance(value, str) else None
    except InvalidOperation:
        number = None
    return "" if number is None or not number.is_finite() else f" (for YAML 1e-4 is a text: write {number:f})"


def _check_type(name: str, value: object, kind: type | UnionType, meaning: str) -> None:
    # To Python a bool is an integer, to a user it is not.
    if not isinstance(value, kind) or (isinstance(value, bool) and bool not in (kind, *get_args(kind))):
        raise TypeError(f"{name} must be {meaning}, not {value!r}.")


def _check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    if value not in tuple(choices):
        raise ValueError(f"{name}={value!r} is not one of {', '.join(choices)}.")
