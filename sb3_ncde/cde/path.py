"""From the observations of a window to the control path that drives the differential equation."""

from typing import NamedTuple

import numpy as np
import torch as th

from sb3_ncde.acting.path import SHORTEST
from sb3_ncde.history.window_rule import Array, Integers
from sb3_ncde.history.windows import Windows


class ControlPath(NamedTuple):
    """The path through the observations of B windows, with K controls.

    :param increments: of each channel over each interval, (H-1, B, C); the channels are time (if it is one), the
        controls (scaled), with rates their rates, and with missing values the count of each feature
    :param values: of the controls (not scaled), with rates their rates, and with missing values the age of each
        feature (nominal steps since it was observed, or since the first knot) at the knots, (H, B, V); time is not
        among them, so that nothing depends on when the episode began
    :param steps: nominal steps that each interval takes, (H-1, B, 1)
    """

    increments: th.Tensor
    values: th.Tensor
    steps: th.Tensor


class Prepared(NamedTuple):
    """What an encoder solves for.

    :param newest: slot of each step's newest observation, (N * T, slot_size)
    :param windows: of the sequences
    :param path: through the observations of the windows
    """

    newest: th.Tensor
    windows: Windows
    path: ControlPath


def control_path(
    controls: th.Tensor,
    elapsed: th.Tensor,
    scale: th.Tensor,
    rates: bool,
    time_scale: float | None = 1.0,
    counts: th.Tensor | None = None,
) -> ControlPath:
    """Return the path through the observations, given by its increments and values.

    The rates are the scaled backward differences of the controls: 0 at the first knot of a window, where no interval
    has passed, then the slope of the interval that ends at the knot; where no time has, the last one is held. A CDE
    integrates, it does not divide: with irregular time the slope is what it cannot find by itself. A repeated last
    observation with no time elapsed (padding) has increments of exactly zero in every channel.

    :param controls: the features of the observations or their projection, (H, B, K)
    :param elapsed: nominal steps since the knot before, >= 0; that of the first knot is not read, (H, B)
    :param scale: of the changes and, with rates, the rates of each control, (V,)
    :param rates: whether the rates are channels of the path
    :param time_scale: what a nominal step counts in the channel of time; None: time is no channel
    :param counts: how often each feature had been observed, (H, B, D), where values may be missing. The rate of a
        feature is then its change since it was observed before, over the time since (see :func:`between_observations`),
        and holds until it is observed again
    """
    if controls.device.type == "cpu" and not (controls.requires_grad or elapsed.requires_grad):
        arrays = (controls.numpy(), elapsed.numpy(), scale.numpy(), None if counts is None else counts.numpy())
        with np.errstate(all="ignore"):  # numbers that overflow become infinite, as in PyTorch
            return ControlPath(*map(th.from_numpy, path_of_data(*arrays, rates=rates, time_scale=time_scale)))
    step = elapsed[1:].unsqueeze(-1)  # (H-1, B, 1)
    change = controls.diff(dim=0)  # (H-1, B, K)
    size = controls.shape[-1]
    increments, values = [change * scale[:size]], [controls]
    if time_scale is not None:
        increments.insert(0, step * time_scale)
    taken, ages = step, None
    if counts is not None:
        ages = since_observed(counts, step)
        # A projection mixes features that were observed at different times: its rates are those of what is held.
        if ages.shape[-1] == size:
            taken = between_observations(counts, step, ages)
    if rates:
        slopes = held(th.zeros_like(controls[:1]), backward_slope(change, taken) * scale[size:], taken)
        increments.append(slopes.diff(dim=0))
        values.append(slopes)
    if counts is not None and ages is not None:
        increments.append(counts.diff(dim=0))
        values.append(ages)
    return ControlPath(th.cat(increments, dim=-1), th.cat(values, dim=-1), step)  # (H-1, B, C) and (H, B, V)


def path_of_data(
    controls: Array, elapsed: Array, scale: Array, counts: Array | None, *, rates: bool, time_scale: float | None
) -> tuple[Array, Array, Array]:
    """Return what :func:`control_path` returns, in NumPy, for controls without gradient."""
    step = elapsed[1:, :, None]  # (H-1, B, 1)
    n_knots, n_windows, size = controls.shape
    n_ages = 0 if counts is None else counts.shape[-1]
    n_values = size * (2 if rates else 1) + n_ages
    place = 0 if time_scale is None else 1
    increments = np.empty((n_knots - 1, n_windows, place + n_values), controls.dtype)
    values = np.empty((n_knots, n_windows, n_values), controls.dtype)
    change = controls[1:] - controls[:-1]
    values[..., :size] = controls
    np.multiply(change, scale[:size], out=increments[..., place : place + size])
    if time_scale is not None:
        np.multiply(step[..., 0], time_scale, out=increments[..., 0])
    taken = step
    if counts is not None:
        gained = counts[1:] - counts[:-1]
        increments[..., -n_ages:] = gained
        time = np.zeros((n_knots, n_windows, 1), controls.dtype)
        np.cumsum(step, axis=0, out=time[1:])
        values[..., -n_ages:] = time - _newest(np.broadcast_to(time, counts.shape), gained > 0)
        if n_ages == size:
            again = (gained > 0) & (counts[:-1] > 0)
            taken = np.where(again, step + values[:-1, :, -n_ages:], 0.0)
    if rates:
        slopes = values[..., size : 2 * size]
        slopes[0] = 0.0
        slopes[1:] = change / np.maximum(taken, SHORTEST) * scale[size:]
        untimed = taken <= 0
        for interval in untimed.any(axis=(1, 2)).nonzero()[0]:  # in their order: the last slope is held
            np.copyto(slopes[interval + 1], slopes[interval], where=untimed[interval])
        np.subtract(slopes[1:], slopes[:-1], out=increments[..., place + size : place + 2 * size])
    return increments, values, step


def _newest(at_knots: Array, counted: Array) -> Array:
    """Return at every knot what stands at the newest knot that counts, (H, B, K); before any, at the first.

    :param at_knots: (H, B, K)
    :param counted: whether each knot but the first counts, (H-1, B, K)
    """
    knots = np.zeros(at_knots.shape, np.int64)
    np.maximum.accumulate(np.where(counted, np.arange(1, len(at_knots))[:, None, None], 0), axis=0, out=knots[1:])
    return np.take_along_axis(at_knots, knots, axis=0)


def between_observations(counts: th.Tensor, step: th.Tensor, ages: th.Tensor) -> th.Tensor:
    """Return the nominal steps from a feature's observation before to its newest, where it has one, (H-1, B, D).

    They are 0 where it is not observed at the end of the interval, or was not observed before in the episode: a first
    value has no rate. One that was observed last before the first knot counts as observed there.

    :param counts: how often each feature had been observed, (H, B, D)
    :param step: nominal steps of each interval, (H-1, B, 1)
    :param ages: of :func:`since_observed`
    """
    again = (counts.diff(dim=0) > 0) & (counts[:-1] > 0)
    return th.where(again, step + ages[:-1], 0.0)


def since_observed(counts: th.Tensor, step: th.Tensor) -> th.Tensor:
    """Return the nominal steps since each feature was observed, or since the first knot, (H, B, D).

    :param counts: how often each feature had been observed, (H, B, D)
    :param step: nominal steps of each interval, (H-1, B, 1)
    """
    time = th.cat((th.zeros_like(counts[:1, :, :1]), step.cumsum(dim=0)))  # (H, B, 1)
    knots = th.arange(1, len(time), device=step.device).view(-1, 1, 1)
    latest = th.where(counts.diff(dim=0) > 0, knots, 0).cummax(dim=0).values  # (H-1, B, D)
    latest = th.cat((th.zeros_like(latest[:1]) if len(latest) else latest.new_zeros(counts.shape), latest))
    return time - time.expand_as(counts).gather(0, latest)


def backward_slope(change: th.Tensor, step: th.Tensor) -> th.Tensor:
    """Return the rate of a change, (..., K), per nominal step, from the nominal steps that it took, (..., 1)."""
    return change / step.clamp(min=SHORTEST)


def held(first: th.Tensor, values: th.Tensor, step: th.Tensor) -> th.Tensor:
    """Return at every knot the value of the newest interval that took time, (H, B, K); before any, the first.

    :param first: (1, B, K)
    :param values: slopes, or another property of each interval, (H-1, B, K)
    :param step: that each took, (H-1, B, 1), or of each value its own, (H-1, B, K)
    """
    at_knots = th.cat((first, values))
    timed = step > 0
    if bool(timed.all()):
        return at_knots
    # The knot whose value holds at each knot: the newest one at the end of a timed interval.
    knots = th.arange(1, len(at_knots), device=step.device).view(-1, 1, 1)
    newest = th.where(timed, knots, 0).cummax(dim=0).values  # (H-1, B, 1)
    return th.cat((first, at_knots.gather(0, newest.expand_as(values))))


def newest_changes(
    path: ControlPath, size: int, counts: Array | None, knot: Integers, window: Integers, rates: bool
) -> Array:
    """Return the unscaled changes, and with ``rates`` their rates, over the interval before each of some knots.

    :param path: through B windows, with K = ``size`` controls
    :param size: K
    :param counts: how often each feature had been observed, (H, B, D), where values may be missing
    :param knot: at the end of each interval, at least 1, (rows,)
    :param window: that it is in, (rows,)
    :param rates: whether the rates are channels of the path
    :return: (rows, V), NaN where an interval took no time, or a feature was not observed at its end and once before
    """
    values = path.values.numpy(force=True)
    now, before = (knot, window), (knot - 1, window)
    change = values[now][:, :size] - values[before][:, :size]
    taken = path.steps.numpy(force=True)[before]  # (rows, 1)
    if counts is not None and counts.shape[-1] == size:  # else of a projection, as in control_path
        again = (counts[now] > counts[before]) & (counts[before] > 0)
        taken = np.where(again, taken + values[before][:, -size:], 0.0)
    if not taken.all():
        change[np.broadcast_to(taken == 0, change.shape)] = np.nan
    return np.concatenate((change, change / np.maximum(taken, SHORTEST)), axis=1) if rates else change
