"""Checks of arguments that YAML can hold: integers, numbers, texts, flags."""

import math
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from types import UnionType
from typing import Any, get_args


def check_integer(name: str, value: Any, minimum: int, optional: bool = False) -> None:
    """Raise TypeError for what is no integer (or None, where ``optional``), ValueError for one below the minimum."""
    check_type(name, value, int | None if optional else int, "an integer or null" if optional else "an integer")
    if value is not None and value < minimum:
        raise ValueError(f"{name}={value}: expected at least {minimum}.")


def check_positive(name: str, value: Any, meaning: str) -> None:
    """Raise TypeError for what is no number, ValueError for one that is not finite and above 0."""
    check_type(name, value, int | float, f"a number, {meaning}{_yaml_hint(value)}")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}={value}: {meaning} must be finite and above 0.")


def _yaml_hint(value: object) -> str:
    """Return how a text that stands for a number is written in YAML."""
    try:
        number = Decimal(value) if isinstance(value, str) else None
    except InvalidOperation:
        number = None
    return "" if number is None or not number.is_finite() else f" (for YAML 1e-4 is a text: write {number:f})"


def check_type(name: str, value: object, kind: type | UnionType, meaning: str) -> None:
    """Raise TypeError for a value of another type."""
    # To Python a bool is an integer, to a user it is not.
    if not isinstance(value, kind) or (isinstance(value, bool) and bool not in (kind, *get_args(kind))):
        raise TypeError(f"{name} must be {meaning}, not {value!r}.")


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise ValueError for a value that is none of the choices."""
    if value not in tuple(choices):
        raise ValueError(f"{name}={value!r} is not one of {', '.join(choices)}.")
