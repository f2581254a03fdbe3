"""What an encoder learns from: when its statistics take it in, and when they are put to use.

The scales (of increments, and of summaries where there are traces) are set by what is learned from, and by nothing
else: the rows of a loss that has been backpropagated and that an optimizer has made a step on, be they of a rollout, of
demonstrations or of a replay buffer.
They are put to use at once, unless a rollout was acted with the present ones: then they wait for
:meth:`Learning.await_rollout`, which is called where SB3 begins the next rollout (``set_training_mode(False)``).
Acting, evaluating and gradients without an optimizer's step do not change them.
"""

import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch as th
from torch.optim.optimizer import register_optimizer_step_post_hook

from sb3_ncde.cde.increment_scale import IncrementScale
from sb3_ncde.cde.path import ControlPath, newest_changes
from sb3_ncde.history.layout import Layout
from sb3_ncde.history.learned_range import LearnedRange
from sb3_ncde.history.window_rule import Array, Integers

MAX_PENDING = 64
"""Backward passes before one optimizer's step that are kept."""
MAX_SETTLED = 64
"""Minibatches that wait to be taken in together."""
MOST_NUMBERS = 2**21
"""Of observations in all of their windows: of images' features fewer minibatches wait."""


class Rollout:
    """Where an agent stands between acting and learning; encoders that share a scale share this."""

    def __init__(self) -> None:
        self.members: list[Learning] = []  # of these encoders
        self.expected = False  # whether rollouts are announced, by Learning.await_rollout
        self.acted = False  # whether one has been begun with the scale that is in use
        self.learned = False  # whether something has been learned since


class Noted(NamedTuple):
    """Rows of a loss that has been backpropagated, as they stand in the windows that were solved for it.

    :param path: through the windows
    :param slots: of their observations, but for elapsed times, (H, B, slot_size - 1)
    :param knot: of each row, (rows,)
    :param window: of each row, (rows,)
    """

    path: ControlPath
    slots: Array
    knot: Integers
    window: Integers


class Learning:
    """Takes what an encoder learns from into its statistics.

    :param weights: returns the encoder's parameters; some may come twice
    :param scale: of increments; None: it stays as it is
    :param summary_scale: of the numbers of summaries, where there are traces
    :param learned_range: of the features
    :param layout: of the histories
    :param control_dim: K, controls of the path
    :param rates: whether their rates are channels of the path
    """

    def __init__(
        self,
        weights: Callable[[], Iterable[th.nn.Parameter]],
        scale: IncrementScale | None,
        summary_scale: IncrementScale | None,
        learned_range: LearnedRange,
        layout: Layout,
        control_dim: int,
        rates: bool,
    ) -> None:
        self.weights = weights
        self.scale = scale
        self.summary_scale = summary_scale
        self.learned_range = learned_range
        self.layout = layout
        self.control_dim = control_dim
        self.rates = rates
        self.rollout = Rollout()
        self.rollout.members.append(self)
        self._pending: list[Noted] = []
        self._settled: list[Noted] = []

    def share(self, other: "Learning") -> None:
        """Have scales and rollout in common with another encoder's."""
        self.scale, self.summary_scale, self.rollout = other.scale, other.summary_scale, other.rollout
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
        if any(weight.requires_grad for weight in self.weights()):
            self._renew()
        rollout.acted = rollout.learned = False

    def note_rollout(self) -> None:
        """Note a step of a rollout: from here to the last update on it the scale stays as it is."""
        self.rollout.acted = self.rollout.expected

    def _renew(self) -> None:
        for scale in (self.scale, self.summary_scale):
            if scale is not None:
                scale.renew()

    def note(
        self,
        path: ControlPath,
        slots: th.Tensor,
        knot: th.Tensor,
        window: th.Tensor,
        gradient: th.Tensor,
    ) -> None:
        """Note rows of a loss as it is backpropagated. Those without a gradient are padding.

        :param path: through the windows that were solved for what the heads see
        :param slots: of their observations, but for elapsed times, (H, B, slot_size - 1)
        :param knot: of each row, (rows,)
        :param window: of each row, (rows,)
        :param gradient: of what the heads see, (rows, output_size)
        """
        weight = next((weight for weight in self.weights() if weight.requires_grad), None)
        if weight is None or weight.grad is None or not weight.grad.numpy(force=True).any():
            self._pending = []  # of gradients that were thrown away: an analysis, or a step without this encoder
        counted = np.add.reduce(np.abs(gradient.numpy(force=True)), axis=1) > 0
        places = (knot.numpy(force=True)[counted], window.numpy(force=True)[counted])
        noted = Noted(ControlPath(*map(th.Tensor.detach, path)), slots.numpy(force=True), *places)
        self._pending = [*self._pending[1 - MAX_PENDING :], noted]
        _PENDING.add(self)

    def _numbers(self, noted: Noted) -> tuple[Array, ...]:
        """Return features, changes, and where there are traces summaries, of rows: what the statistics are of."""
        path, slots, knot, window = noted
        layout, rows = self.layout, slots[knot, window]
        newest, counts, counted_now = rows[:, : layout.features_dim], layout.counts(slots), layout.counts(rows)
        if counted_now is not None:
            newest = np.where(counted_now == 0, np.nan, newest)
        summaries: tuple[Array, ...] = ()
        if layout.traces is not None:
            summary = layout.traces.values(rows[:, layout.observed_size :], counted_now)
            if counted_now is not None:  # what was never observed is no value
                unseen = np.tile(counted_now == 0, layout.traces.n_groups)
                summary[:, : unseen.shape[1]][unseen] = np.nan
            summaries = (summary,)
        inner = knot > 0
        changes = newest_changes(path, self.control_dim, counts, knot[inner], window[inner], self.rates)
        return newest, changes, *summaries

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
            self._renew()
        elif len(self._settled) >= min(MAX_SETTLED, MOST_NUMBERS / self._settled[-1].slots.size):
            self.take_in()

    def take_in_all(self) -> None:
        """Take in what is settled of all encoders that share the scale."""
        for member in self.rollout.members:
            member.take_in()

    def take_in(self) -> None:
        """Take what is settled into the statistics. It is done for many minibatches in a row, which is quicker.

        It is called before the statistics are used, saved or copied.
        """
        if not self._settled:
            return
        numbers = map(self._numbers, self._settled)
        newest, changes, *summaries = map(np.concatenate, zip(*numbers, strict=True))
        self._settled = []
        self.learned_range.learn(newest)
        if self.scale is not None:
            self.scale.observe(changes)
        if self.summary_scale is not None:
            self.summary_scale.observe(summaries[0])


_PENDING: "weakref.WeakSet[Learning]" = weakref.WeakSet()
"""Those with rows that wait for an optimizer's step."""


def _after_step(optimizer: th.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Tell of a step of any optimizer: users have their own for demonstrations."""
    for learning in tuple(_PENDING):
        learning.settle(optimizer)


register_optimizer_step_post_hook(_after_step)
