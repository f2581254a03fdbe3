"""The newest interval of the paths of open windows.

The same as :mod:`sb3_ncde.cde.path` makes of whole windows, of which it explains the channels and values.
"""

from typing import NamedTuple

import numpy as np

from sb3_ncde.acting.description import Description, Weights
from sb3_ncde.acting.networks import linear
from sb3_ncde.history.window_rule import Array

SHORTEST = 0.1
"""Fraction of a nominal step: what changes in less time has the rate as if it had taken as long.

A short interval divides the noise of values and timestamps by almost nothing; one such rate would drown all the others.
"""


class Knots(NamedTuple):
    """The newest knot of each of L open windows of N environments.

    :param observed: the newest observation: features (and their counts), (N, D)
    :param controls: of it, (N, K)
    :param values: of the path there, (N, L, V)
    """

    observed: Array
    controls: Array
    values: Array


def advance(
    knots: Knots, observed: Array, elapsed: Array, description: Description, weights: Weights
) -> tuple[Knots, Array]:
    """Return the knots at the next observation, and the increments of the path to there, (N, L, C).

    :param knots: before
    :param observed: the newest observation, (N, D)
    :param elapsed: nominal steps since the observation before, (N, 1)
    """
    size, n_ages, scale = description.control_dim, description.ages_dim, weights.scale
    held = observed[:, : description.layout.features_dim] if n_ages else observed
    controls = held if weights.control is None else linear(held, weights.control)
    change = controls - knots.controls
    values = np.empty(knots.values.shape, knots.values.dtype)
    increments = np.empty((*values.shape[:2], description.channels), values.dtype)
    values[..., :size] = controls[:, None]
    place = 0
    if description.time_channel:
        place = 1
        increments[..., 0] = elapsed * description.time_scale
    increments[..., place : place + size] = (change * scale[:size])[:, None]
    taken = elapsed[:, None]  # (N, 1, 1)
    if n_ages:
        counts, counts_before = observed[:, -n_ages:], knots.observed[:, -n_ages:]
        gained = counts - counts_before
        increments[..., -n_ages:] = gained[:, None]
        again = (gained > 0)[:, None]  # (N, 1, D)
        ages = knots.values[..., -n_ages:] + taken  # since each was observed, if it is not observed now
        values[..., -n_ages:] = np.where(again, 0.0, ages)
        if n_ages == size:
            taken = np.where(again & (counts_before > 0)[:, None], ages, 0.0)
    if description.rates:
        before, rates = knots.values[..., size : 2 * size], values[..., size : 2 * size]
        rates[...] = change[:, None] * (scale[size:] / np.maximum(taken, SHORTEST))
        if not taken.all():  # a rate holds where no time has been taken
            rates[...] = np.where(taken > 0, rates, before)
        np.subtract(rates, before, out=increments[..., place + size : place + 2 * size])
    return Knots(observed, controls, values), increments
