"""From what the encoder makes of a history to the action: the heads, the distribution, and what the robot is told."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sb3_ncde.deploy.networks import Layer, run

FORBIDDEN = -1e8
"""Logit of an option that the mask does not allow, as sb3-contrib has it."""


class Action(NamedTuple):
    """What is made of the actor's output.

    :param kind: "box", "discrete", "multi_discrete" or "multi_binary"
    :param shape: of one action
    :param dtype: of its numbers
    :param choices: options of each choice that is made by the greatest of its logits; none of "box", and of
        "multi_binary" without a mask, whose logits are one a bit
    :param low: bounds of "box"
    :param high: of "box"
    :param squashed: whether the action is the tanh of the mean
    :param unscaled: whether -1 and 1 stand for the bounds; else the action is clipped to them
    """

    kind: str
    shape: list[int]
    dtype: str
    choices: list[int]
    low: Any = None
    high: Any = None
    squashed: bool = False
    unscaled: bool = False

    def chosen(self, xp: Any, out: Any) -> Any:
        """Return actions, (N, *shape), from the actor's output, (N, size)."""
        shape = (-1, *self.shape)
        if self.kind == "box":
            mean = xp.reshape(xp.tanh(out) if self.squashed else out, shape)
            low, high = xp.asarray(self.low), xp.asarray(self.high)
            if self.unscaled:
                return low + (0.5 * (mean + 1.0) * (high - low))
            return xp.clip(mean, low, high)
        if not self.choices:
            return xp.reshape((out > 0).astype(xp.int64), shape)
        begin, best = 0, []
        for options in self.choices:
            best.append(xp.argmax(out[:, begin : begin + options], axis=1, keepdims=True))
            begin += options
        return xp.reshape(xp.concat(best, axis=1), shape)


class Heads(NamedTuple):
    """What actor and critic make of what they see.

    :param parameters: name of the actor's output: "mean", "logits" or "q_values"
    :param hidden: layers that the actor's outputs share
    :param actor: the layers after them
    :param log_std: of the actions: layers after the hidden ones, or an array; None: there is none
    :param value: layers of the critic, or None
    """

    parameters: str
    hidden: Sequence[Layer]
    actor: Sequence[Layer]
    log_std: Any
    value: Sequence[Layer] | None

    def act(self, xp: Any, action: Action, seen: Any, mask: Any | None) -> dict[str, Any]:
        """Return ``action`` and the parameters of its distribution by name, (N, ...) each.

        :param seen: by the actor, (N, size)
        :param mask: 1 where an option is allowed, (N, options), or None
        """
        hidden = run(xp, self.hidden, seen)
        out = run(xp, self.actor, hidden)
        if mask is not None:
            out = xp.where(mask > 0, out, FORBIDDEN)
        outputs = {"action": action.chosen(xp, out), self.parameters: out}
        if isinstance(self.log_std, list):
            outputs["log_std"] = run(xp, self.log_std, hidden)
        elif self.log_std is not None:
            outputs["log_std"] = xp.asarray(self.log_std) + 0.0 * out
        return outputs

    def judge(self, xp: Any, seen: Any) -> dict[str, Any]:
        """Return ``value``, (N,), where there is a critic.

        :param seen: by the critic, (N, size)
        """
        return {} if self.value is None else {"value": run(xp, self.value, seen)[:, 0]}
