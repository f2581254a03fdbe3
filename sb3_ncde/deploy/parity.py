"""Parity: an exported agent and the one it was made of, side by side, over whole episodes."""

from typing import Any

import numpy as np

from sb3_ncde.deploy.contents import Tree
from sb3_ncde.deploy.heads import FORBIDDEN
from sb3_ncde.history.window_rule import Array

Outputs = dict[str, Array]


class ParityError(ValueError):
    """An exported agent does something else than the one that it was made of."""


class Parity:
    """Takes in what two agents do, and keeps the largest difference of each output.

    A number differs by its distance, where it is above 1 by its distance over its size. Of discrete actions, one that
    differs counts only where the two are told apart by more than the tolerance: rounding decides a tie.

    :param tolerance: of a difference
    """

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self.largest: dict[str, float] = {}

    def compare(self, runtime: str, expected: Outputs, found: Outputs, action: Tree, size: float = 1.0) -> None:
        """Take in a step.

        :param runtime: name of what is compared with PyTorch
        :param expected: outputs by name, (N, ...)
        :param found: likewise; what is not in both is not compared
        :param action: of the agent's tree
        :param size: of the observations, as a multiple of the usual: rounding errors are as large
        """
        for name in sorted(expected.keys() & found.keys()):
            mine, theirs = (np.asarray(values[name], np.float64) for values in (found, expected))
            theirs = theirs.reshape(len(theirs), -1)
            mine = mine.reshape(len(mine), -1)[:, : theirs.shape[1]]
            if name == "next_history":
                theirs = theirs[:, : mine.shape[1]]
            if name == "logits":  # PyTorch's are from before the mask
                theirs = np.where(mine == FORBIDDEN, FORBIDDEN, theirs)
            distance = np.abs(mine - theirs) / np.maximum(1.0, np.abs(theirs))
            if name == "action" and action["kind"] != "box":
                distance = (mine != theirs) * _margin(found, action)
            # NaN is a difference like no other.
            largest = float(np.max(np.where(np.isnan(distance), np.inf, distance), initial=0.0))
            key = f"{runtime}: {name}" if size == 1 else f"{runtime}, large observations: {name}"
            self.largest[key] = max(self.largest.get(key, 0.0), largest / size)

    def check(self) -> None:
        """Raise ParityError where a difference is above the tolerance."""
        wrong = {name: largest for name, largest in self.largest.items() if not largest <= self.tolerance}
        if wrong:
            told = ", ".join(f"{name} differs by {largest:.2g}" for name, largest in wrong.items())
            raise ParityError(
                f"The exported agent does not do what the model does: {told}, of at most {self.tolerance:g}. No file "
                "was written. Far above it, a network of your own whose forward does something else than its layers in "
                "their order is a likely reason. A few times above, it is the rounding of large numbers, as raw pixels "
                "or counts make them: normalise observations, or pass a larger tolerance."
            )

    def __str__(self) -> str:
        """Name the largest difference of each output."""
        return ", ".join(f"{name} {largest:.1e}" for name, largest in self.largest.items())


def _margin(outputs: Outputs, action: Tree) -> Any:
    """Return by how much each choice was told apart from the next best, (N, choices), or (N, bits)."""
    said = np.asarray(outputs["q_values" if "q_values" in outputs else "logits"], np.float64)
    if not action["choices"]:
        return np.abs(said)
    ends = np.cumsum(action["choices"])[:-1]
    best = [np.sort(part, axis=1)[:, -2:] for part in np.split(said, ends, axis=1)]
    return np.stack([part[:, -1] - part[:, 0] if part.shape[1] > 1 else part[:, 0] * 0 for part in best], axis=1)
