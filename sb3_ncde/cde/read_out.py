"""What the heads see beside z: the newest observation, and what the path says of it."""

import numpy as np
import torch as th


def seen_beside(
    newest: th.Tensor,
    values: th.Tensor,
    knot: th.Tensor,
    window: th.Tensor,
    features_dim: int,
    control_dim: int,
    time_scale: float,
    summary: th.Tensor | None,
) -> th.Tensor:
    """Return what the heads see beside z: features, elapsed time, rates, ages, and the summary, (rows, numbers).

    :param newest: slot of each row's newest observation, (rows, slot_size)
    :param values: of the path through the windows, (H, B, V)
    :param knot: of each row, (rows,)
    :param window: of each row, (rows,)
    :param features_dim: D
    :param control_dim: K
    :param time_scale: what a nominal step counts
    :param summary: of the episode up to each row, (rows, numbers), or None
    """
    if summary is None and newest.device.type == "cpu" and not (newest.requires_grad or values.requires_grad):
        rows, on_path = newest.numpy(), values.numpy()[knot.numpy(), window.numpy()]
        parts = (rows[:, :features_dim], rows[:, -1:] * time_scale, on_path[:, control_dim:])
        return th.from_numpy(np.concatenate(parts, axis=1))
    seen = [newest[:, :features_dim], newest[:, -1:] * time_scale, values[knot, window][:, control_dim:]]
    return th.cat(seen if summary is None else [*seen, summary], dim=1)
