"""The latent state between observations, along the path that the encoder solves."""

import torch as th

from sb3_ncde.encoder import NeuralCDE
from sb3_ncde.solvers import SOLVERS, integrate_adaptively_within, integrate_within


def between(encoder: NeuralCDE, observations: th.Tensor, n_points: int) -> tuple[th.Tensor, th.Tensor]:
    """Return z between the observations of an episode, as the encoder sees it when it acts.

    At each step but the first, z moves from the observation before to the newest one in the window that serves the
    step. Where windows change (hops), the next step does not begin where this one ended.

    :param encoder: of an agent
    :param observations: features and time of an episode's T steps, (T, D + 1)
    :param n_points: points between two observations, both of them included
    :return: where in the time between the two the points are (fractions; on a rectilinear path time moves first,
        then stands still), (P,), and z there, (P, T - 1, Z); NaN where the window holds the newest one alone
    """
    empty = tuple(observations.new_zeros((1, 1, encoder.hidden_size)) for _ in range(2))
    starts = observations.new_zeros(len(observations))
    with th.no_grad():
        appended, _ = encoder._append(observations, (empty[0], empty[1]), starts)
        windows = encoder.history.windows(appended)
        path = encoder._path(windows.features, windows.elapsed)
        curve, field = encoder._curve(path), encoder.field.product()
        knots = encoder._integrate(encoder._begin(windows.features[0]), curve)
        places = th.linspace(0, 1, n_points).tolist()
        if len(knots) == 1:  # no intervals, and so nowhere to go
            z = knots.new_full((n_points, 2, *knots.shape[1:]), th.nan)  # 2, of which rectilinear paths take one
        elif encoder.solver in SOLVERS:
            inner = [integrate_within(field, knots, curve, encoder.solver, encoder.solver_steps, u) for u in places[1:]]
            z = th.stack((knots[:-1], *inner))  # (n_points, I, B, Z)
        else:
            later = integrate_adaptively_within(
                field, knots, curve, encoder.solver, encoder.rtol, encoder.atol, places[1:]
            )
            z = th.cat((knots[:-1].unsqueeze(0), later))
    fractions = th.tensor(places)
    if encoder.interpolation == "rectilinear":
        z = th.cat((z[:, ::2], z[:, 1::2]))
        fractions = th.cat((fractions, th.ones(n_points)))
    interval, window = windows.knot[1:] - 1, windows.window[1:]  # (T - 1,)
    return fractions, z[:, interval, window].masked_fill((interval < 0).view(-1, 1), th.nan)
