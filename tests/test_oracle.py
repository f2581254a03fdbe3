"""With the seed system's weights, the policy computes the seed system's numbers, in float64."""

from typing import Any

import numpy as np
import pytest
import torch as th

from tests.oracle import CASES, DATA, Oracle

TIGHT: dict[str, Any] = {"solver": "dopri5", "rtol": 1e-10, "atol": 1e-10}
FIXED: dict[str, dict[str, Any]] = {"heun": {"solver": "heun"}, "euler": {"solver": "euler"}}


def close(found: th.Tensor, expected: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("mode", "encoder", "tolerance", "gradient_tolerance"),
    [("heun", FIXED["heun"], 1e-12, 1e-10), ("euler", FIXED["euler"], 1e-12, 1e-10), ("tight", TIGHT, 1e-6, 1e-6)],
)
def test_outputs_and_gradients_are_the_seed_s(
    case: str, mode: str, encoder: dict[str, Any], tolerance: float, gradient_tolerance: float
) -> None:
    oracle = Oracle(case)
    scores = oracle.scores(**encoder)
    for name in ("z", "features", "value", "log_prob", "entropy"):
        close(scores[name], oracle.npz[f"{mode}/{name}"], tolerance)
    objective = scores["value"] + scores["log_prob"]
    assert oracle.error(mode, "grad_last", oracle.gradients(objective[-1])) < gradient_tolerance
    assert oracle.error(mode, "grad_sum", oracle.gradients(objective.sum())) < gradient_tolerance


@pytest.mark.parametrize("case", CASES)
def test_the_adjoint_s_gradients_are_the_seed_s(case: str) -> None:
    oracle = Oracle(case)
    scores = oracle.scores(**TIGHT, adjoint=True)
    gradients = oracle.gradients((scores["value"] + scores["log_prob"]).sum())
    assert oracle.error("tight", "grad_sum", gradients) < 1e-6


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("encoder", "tolerance"), [(TIGHT, 1e-7), ({"solver": "rk4", "solver_steps": 64}, 1e-8)], ids=["tight", "rk4"]
)
def test_z_and_values_are_the_exact_ones(case: str, encoder: dict[str, Any], tolerance: float) -> None:
    exact = np.load(DATA / "exact.npz")
    scores = Oracle(case).scores(**encoder)
    close(scores["z"], exact[f"{case}/z"], tolerance)
    close(scores["value"], exact[f"{case}/value"], tolerance)
