"""The operations of an exported agent in NumPy."""

import numpy as np

from sb3_ncde.acting.networks import softplus
from sb3_ncde.deploy.operations import operations
from sb3_ncde.history.window_rule import Array


def unstack(values: Array, size: int) -> list[Array]:
    """Return the parts of values, (N, size, ...), (N, ...) each."""
    return [values[:, place] for place in range(size)]


def flatten(rows: Array) -> Array:
    """Return rows, (N, ...), of one dimension each."""
    return rows.reshape(len(rows), -1)


def conv2d(images: Array, weight: Array, bias: Array, stride: list[int], padding: list[int]) -> Array:
    """Return the convolution of images, (N, channels, height, width), as PyTorch's Conv2d computes it.

    :param weight: (channels_out, channels, height, width)
    :param bias: (channels_out,)
    :param stride: of height and width
    :param padding: zeros on either side, of height and width
    """
    (vertical, horizontal), (down, right) = padding, stride
    padded = np.pad(images, ((0, 0), (0, 0), (vertical, vertical), (horizontal, horizontal)))
    # (N, channels, rows, columns, height, width), a view
    patches = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], (2, 3))[:, :, ::down, ::right]
    n_images, channels, rows, columns, height, width = patches.shape
    flat = patches.transpose(0, 2, 3, 1, 4, 5).reshape(n_images * rows * columns, channels * height * width)
    out = flat @ weight.reshape(len(weight), -1).T + bias
    return out.reshape(n_images, rows, columns, -1).transpose(0, 3, 1, 2)  # type: ignore[no-any-return]


NUMPY = operations(
    np,
    argmax=np.argmax,
    concat=np.concatenate,
    conv2d=conv2d,
    flatten=flatten,
    matmul=np.matmul,
    softplus=softplus,
    transpose=np.transpose,
    unstack=unstack,
)
