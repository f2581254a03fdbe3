"""With the seed system's weights, the policy computes the seed system's numbers, in float64."""

from pathlib import Path

import numpy as np
import pytest
import torch as th

from sb3_ncde.cde.solvers import AdaptiveSolver, FixedSolver, Solver
from tests.oracle import CASES, DATA, Oracle

TIGHT = AdaptiveSolver("dopri5", rtol=1e-10, atol=1e-10)
HEUN, EULER = FixedSolver("heun"), FixedSolver("euler")


def close(found: th.Tensor, expected: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("mode", "solver", "tolerance", "gradient_tolerance"),
    [("heun", HEUN, 1e-12, 1e-10), ("euler", EULER, 1e-12, 1e-10), ("tight", TIGHT, 1e-6, 1e-6)],
)
def test_outputs_and_gradients_are_the_seed_s(
    case: str, mode: str, solver: Solver, tolerance: float, gradient_tolerance: float
) -> None:
    oracle = Oracle(case)
    scores = oracle.scores(solver)
    for name in ("z", "features", "value", "log_prob", "entropy"):
        close(scores[name], oracle.npz[f"{mode}/{name}"], tolerance)
    objective = scores["value"] + scores["log_prob"]
    assert oracle.error(mode, "grad_last", oracle.gradients(objective[-1])) < gradient_tolerance
    assert oracle.error(mode, "grad_sum", oracle.gradients(objective.sum())) < gradient_tolerance


@pytest.mark.parametrize("case", CASES)
def test_the_adjoint_s_gradients_are_the_seed_s(case: str) -> None:
    oracle = Oracle(case)
    scores = oracle.scores(AdaptiveSolver("dopri5", rtol=1e-10, atol=1e-10, adjoint=True))
    gradients = oracle.gradients((scores["value"] + scores["log_prob"]).sum())
    assert oracle.error("tight", "grad_sum", gradients) < 1e-6


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("solver", "tolerance"), [(TIGHT, 1e-7), (FixedSolver("rk4", 64), 1e-8)], ids=["tight", "rk4"])
def test_z_and_values_are_the_exact_ones(case: str, solver: Solver, tolerance: float) -> None:
    exact = np.load(DATA / "exact.npz")
    scores = Oracle(case).scores(solver)
    close(scores["z"], exact[f"{case}/z"], tolerance)
    close(scores["value"], exact[f"{case}/value"], tolerance)


@pytest.mark.parametrize("case", CASES)
def test_a_deeper_action_head_is_read_by_the_same_keys(case: str, seed: int, tmp_path: Path) -> None:
    """No fixture has ``action_depth=2``: two layers with relu between them, then the output."""
    rng = np.random.default_rng(seed)
    fixture = dict(np.load(DATA / f"ncde_{case}.npz"))
    latent_size = fixture["heun/features"].shape[1]
    for layer, shape in enumerate([(16, latent_size), (latent_size, 16)]):
        fixture[f"w/action_head.mlp.{layer}.weight"] = rng.normal(size=shape)
        fixture[f"w/action_head.mlp.{layer}.bias"] = rng.normal(size=shape[0])
    np.savez(tmp_path / f"ncde_{case}.npz", **fixture)

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        y: np.ndarray = x @ fixture[f"w/action_head.{name}.weight"].T + fixture[f"w/action_head.{name}.bias"]
        return y

    output = linear("out", linear("mlp.1", np.maximum(0.0, linear("mlp.0", fixture["heun/features"]))))
    if "w/action_head.log_std" in fixture:
        log_std = fixture["w/action_head.log_std"]
        error = (fixture["act"].reshape(output.shape) - output) / np.exp(log_std)
        expected = (-0.5 * error**2 - log_std - 0.5 * np.log(2 * np.pi)).sum(axis=1)
    else:
        chosen = np.take_along_axis(output, fixture["act"][:, None], axis=1)[:, 0]
        expected = chosen - np.log(np.exp(output).sum(axis=1))
    close(Oracle(case, tmp_path).scores(HEUN)["log_prob"], expected, 1e-10)
