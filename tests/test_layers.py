"""Layers of an exported network compute what PyTorch's do, in NumPy and in ONNX Runtime."""

from typing import Any

import ndonnx as ndx
import numpy as np
import onnxruntime as ort
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sb3_ncde.deploy.layers import CannotExportError, layers_of
from sb3_ncde.deploy.networks import run
from sb3_ncde.deploy.numpy_arrays import NUMPY
from sb3_ncde.deploy.onnx_arrays import ONNX


def in_graph(network: list[dict[str, Any]], rows: Any) -> Any:
    """Return what layers make of rows in ONNX Runtime."""
    given = ndx.argument(shape=("N", *rows.shape[1:]), dtype=ndx.float32)
    graph = ndx.build({"rows": given}, {"out": run(ONNX, network, given)})
    return ort.InferenceSession(graph.SerializeToString()).run(["out"], {"rows": rows})[0]


def test_layers_are_those_of_pytorch() -> None:
    """Each activation and norm that is known, one after the other, for values that are large as well."""
    norm = nn.BatchNorm1d(6)
    norm(10 * th.randn(50, 6))
    activations = [nn.Tanh(), nn.ReLU(), nn.ELU(0.7), nn.LeakyReLU(0.3), nn.SiLU(), nn.Sigmoid(), nn.Softplus()]
    others = [nn.Hardtanh(-0.4, 0.6), nn.LayerNorm(6), norm, nn.LayerNorm(6, elementwise_affine=False), nn.Identity()]
    rows = 30 * th.randn(4, 6)
    for layer in [*activations, *others, nn.BatchNorm1d(6, affine=False), nn.Linear(6, 3, bias=False)]:
        module = nn.Sequential(nn.Linear(6, 6), layer, nn.Dropout(0.5)).eval()
        layers = layers_of(module, "net")
        expected = module(rows).detach().numpy()
        np.testing.assert_allclose(run(NUMPY, layers, rows.numpy()), expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(in_graph(layers, rows.numpy()), expected, rtol=1e-4, atol=1e-4)


def test_a_layer_may_be_used_twice() -> None:
    twice = nn.Tanh()
    module, rows = nn.Sequential(nn.Linear(3, 3), twice, nn.Linear(3, 3), twice), th.randn(4, 3)
    found = run(NUMPY, layers_of(module, "net"), rows.numpy())
    np.testing.assert_allclose(found, module(rows).detach().numpy(), atol=1e-6)


@settings(max_examples=10)
@given(
    size=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    bias=st.booleans(),
)
def test_convolutions_are_those_of_pytorch(size: Any, kernel: Any, stride: Any, padding: Any, bias: bool) -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, kernel, stride, padding, bias=bias), nn.Flatten())
    images, layers = th.randn(2, 2, *size), layers_of(module, "net")
    expected = module(images).detach().numpy()
    np.testing.assert_allclose(run(NUMPY, layers, images.numpy()), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(in_graph(layers, images.numpy()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (nn.PReLU(), "net.0.*PReLU"),
        (nn.Conv2d(1, 1, 2, dilation=2), "dilation=1"),
        (nn.Conv2d(1, 1, 3, padding="same"), "padding"),
        (nn.LayerNorm((2, 3)), "one dimension"),
        (nn.Softplus(beta=5), "beta=1"),
        (nn.BatchNorm1d(2, track_running_stats=False), "statistics are those of each batch"),
    ],
)
def test_layers_that_are_not_known_are_named(module: nn.Module, name: str) -> None:
    with pytest.raises(CannotExportError, match=name):
        layers_of(nn.Sequential(module), "net")
