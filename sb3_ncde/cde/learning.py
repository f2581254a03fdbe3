"""What an encoder learns from: when its statistics take it in, and when they are put to use.

The scale of increments is set by what is learned from, and by nothing else: the rows of a loss that has been
backpropagated and that an optimizer has made a step on, be they of a rollout, of demonstrations or of a replay buffer.
It is put to use at once, unless a rollout was acted with the present one: then it waits for
:meth:`Learning.await_rollout`, which the policy calls where RecurrentPPO begins the next rollout
(``set_training_mode(False)``). Acting, evaluating and gradients without an optimizer's step do not change it.
"""

import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch as th
from torch.optim.optimizer import register_optimizer_step_post_hook

from sb3_ncde.cde.increment_scale import IncrementScale
from sb3_ncde.cde.path import ControlPath, newest_changes
from sb3_ncde.history.learned_range import LearnedRange
from sb3_ncde.history.window_rule import Array

MAX_PENDING = 64
"""Backward passes before one optimizer's step that are kept."""
MAX_SETTLED = 64
"""Minibatches that wait to be taken in together."""


class Rollout:
    """Where an agent stands between acting and learning; encoders that share a scale share this."""

    def __init__(self) -> None:
        self.members: list[Learning] = []  # of these encoders
        self.expected = False  # whether rollouts are announced, by Learning.await_rollout
        self.acted = False  # whether one has been begun with the scale that is in use
        self.learned = False  # whether something has been learned since


class Learning:
    """Takes what an encoder learns from into its statistics.

    :param weights: returns the encoder's parameters
    :param scale: of increments; None: it stays as it is
    :param learned_range: of the features
    :param control_dim: K, controls of the path
    :param rates: whether their rates are channels of the path
    """

    def __init__(
        self,
        weights: Callable[[], Iterable[th.nn.Parameter]],
        scale: IncrementScale | None,
        learned_range: LearnedRange,
        control_dim: int,
        rates: bool,
    ) -> None:
        self.weights = weights
        self.scale = scale
        self.learned_range = learned_range
        self.control_dim = control_dim
        self.rates = rates
        self.rollout = Rollout()
        self.rollout.members.append(self)
        self._pending: list[tuple[Array, Array]] = []
        self._settled: list[tuple[Array, Array]] = []

    def share(self, other: "Learning") -> None:
        """Have scale and rollout in common with another encoder's."""
        self.scale, self.rollout = other.scale, other.rollout
        self.rollout.members.append(self)

    def await_rollout(self) -> None:
        """Put the scale of what has been learned from to use, as the next step may begin a rollout.

        It is called where a policy is told to act, by a callback between rollout and update perhaps: as long as nothing
        has been learned since the rollout began, the rollout stays. The scale of a frozen encoder, which another agent
        may share, stays as well.
        """
        rollout = self.rollout
        rollout.expected = True
        if rollout.acted and not rollout.learned:
            return
        self.take_in_all()
        if self.scale is not None and any(weight.requires_grad for weight in self.weights()):
            self.scale.renew()
        rollout.acted = rollout.learned = False

    def note_rollout(self) -> None:
        """Note a step of a rollout: from here to the last update on it the scale stays as it is."""
        self.rollout.acted = self.rollout.expected

    def watch(
        self, seen: th.Tensor, path: ControlPath, features: th.Tensor, counts: th.Tensor | None, *place: th.Tensor
    ) -> None:
        """Note the rows that a loss will be made of, once it is backpropagated.

        :param seen: what the heads see, (rows, output_size)
        :param path: through the windows that were solved for it
        :param features: of their observations, (H, B, D)
        :param counts: how often each had been observed, (H, B, D), where values may be missing
        :param place: knot and window of each row, (rows,) each
        """
        if seen.requires_grad:
            seen.register_hook(partial(self._note, path, features, counts, *place))  # type: ignore[no-untyped-call]

    def _note(
        self,
        path: ControlPath,
        features: th.Tensor,
        counts: th.Tensor | None,
        knot: th.Tensor,
        window: th.Tensor,
        gradient: th.Tensor,
    ) -> None:
        """Note rows in the backward pass, before the optimizer's step. Those without a gradient are padding.

        :param gradient: of what the heads see, (rows, output_size)
        """
        weight = next((weight for weight in self.weights() if weight.requires_grad), None)
        if weight is None or weight.grad is None or not bool(weight.grad.any()):
            self._pending = []  # of gradients that were thrown away: an analysis, or a step without this encoder
        counted = gradient.numpy(force=True).any(axis=1)
        knots, windows = knot.numpy(force=True)[counted], window.numpy(force=True)[counted]
        newest = features.numpy(force=True)[knots, windows]
        numbers = None if counts is None else counts.numpy(force=True)
        if numbers is not None:
            newest[numbers[knots, windows] == 0] = np.nan
        inner = knots > 0
        changes = newest_changes(path, self.control_dim, numbers, knots[inner], windows[inner], self.rates)
        self._pending = [*self._pending[1 - MAX_PENDING :], (newest, changes)]
        _PENDING.add(self)

    def settle(self, optimizer: th.optim.Optimizer) -> None:
        """Take in what was noted since the optimizer's step before.

        :param optimizer: that has made a step, perhaps on other weights than these
        """
        stepped = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        if not any(id(weight) in stepped and weight.requires_grad for weight in self.weights()):
            return
        _PENDING.discard(self)
        self.rollout.learned = True
        self._settled.extend(self._pending)
        self._pending = []
        if not self.rollout.acted:  # nothing has been acted on that the scale would have to stay the same for
            self.take_in()
            if self.scale is not None:
                self.scale.renew()
        elif len(self._settled) >= MAX_SETTLED:
            self.take_in()

    def take_in_all(self) -> None:
        """Take in what is settled of all encoders that share the scale."""
        for member in self.rollout.members:
            member.take_in()

    def take_in(self) -> None:
        """Take what is settled into the statistics. It is done for many minibatches together, which is quicker.

        It is called before the statistics are used, saved or copied.
        """
        if not self._settled:
            return
        newest, changes = map(np.concatenate, zip(*self._settled, strict=True))
        self._settled = []
        self.learned_range.learn(newest)
        if self.scale is not None:
            self.scale.observe(changes)


_PENDING: "weakref.WeakSet[Learning]" = weakref.WeakSet()
"""Those with rows that wait for an optimizer's step."""


def _after_step(optimizer: th.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Tell of a step of any optimizer: users have their own for demonstrations."""
    for learning in tuple(_PENDING):
        learning.settle(optimizer)


register_optimizer_step_post_hook(_after_step)
