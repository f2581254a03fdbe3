"""The latent state between observations, along the path that the encoder solves."""

import torch as th

from sb3_ncde.cde.encoder import NeuralCDE


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
    empty = observations.new_zeros((1, 1, encoder.hidden_size))
    starts = observations.new_zeros(len(observations))
    with th.no_grad():
        appended, _ = encoder.append(observations, (empty, empty), starts)
        windows = appended.windows()
        curve = encoder.curve(encoder.path(windows.features, windows.elapsed))
        field, pieces = encoder.field.product(), curve.pieces
        knots = encoder.solver.integrate(field, encoder.initial(encoder.start(windows.features[0])), curve)
        places = th.linspace(0, 1, n_points).tolist()
        if len(knots) == 1:  # no intervals, and so nowhere to go
            z = knots.new_full((n_points, pieces, *knots.shape[1:]), th.nan)
        else:
            z = th.cat((knots[:-1].unsqueeze(0), encoder.solver.within(field, knots, curve, places[1:])))
    # Of each interval between observations its pieces, one after the other: only on the first does time pass.
    z = th.cat([z[:, piece::pieces] for piece in range(pieces)])  # (P, I, B, Z)
    fractions = th.cat((th.tensor(places), th.ones((pieces - 1) * n_points)))
    interval, window = windows.knot[1:] - 1, windows.window[1:]  # (T - 1,)
    return fractions, z[:, interval, window].masked_fill((interval < 0).view(-1, 1), th.nan)
