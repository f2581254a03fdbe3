"""One table for each choice: who adds a line to it finds the name in all that depends on it."""

import re
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from sb3_contrib import RecurrentPPO

import sb3_ncde  # noqa: F401
from sb3_ncde.acting.tableaus import SOLVERS
from sb3_ncde.arguments import NCDEArguments
from sb3_ncde.cde.feature_norms import FEATURE_NORMS
from sb3_ncde.cde.interpolation import INTERPOLATIONS, Linear
from sb3_ncde.zoo.sampler import convert_ppo_ncde_params, sample_ppo_ncde_params

ROOT = Path(__file__).parents[1]


def test_a_solver_is_one_line() -> None:
    """Each test that goes through the solvers also goes through the new one, and it passes them."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.toy_solver", "-p", "no:cacheprovider", "-v"]
    files = ["tests/test_solvers.py", "tests/test_encoder.py", "tests/test_ratio.py"]
    done = subprocess.run([*command, *files, "-k", "ralston"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    tests = set(re.findall(r"::(\w+)\[\S*ralston\S*\] PASSED", done.stdout))
    assert tests == {
        "test_order_of_convergence",
        "test_constant_field_integrates_the_path_exactly",
        "test_zero_increments_change_no_bit",
        "test_field_is_called_at_the_nodes_of_the_tableau",
        "test_gradients_are_those_of_finite_differences",
        "test_the_newest_observation_matters",
        "test_between_observations_z_runs_from_one_to_the_next",
        "test_ratio_is_one_with_time_in_a_dict",
    }


def test_a_solver_is_accepted_named_and_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOLVERS, "ralston", SOLVERS["heun"])
    model = RecurrentPPO(
        "NCDEPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu", policy_kwargs={"solver": "ralston"}
    )
    model.learn(8)
    with pytest.raises(ValueError, match=r"solver='rk5' is not one of .*ralston"):
        NCDEArguments(solver="rk5")
    with pytest.raises(ValueError, match="solver='ralston' with interpolation='hermite'"):
        NCDEArguments(solver="ralston", interpolation="hermite")
    trial = optuna.create_study().ask()
    sample_ppo_ncde_params(trial, 1, 1, {})
    assert "ralston" in trial.distributions["solver"].choices  # type: ignore[attr-defined]
    assert convert_ppo_ncde_params(trial.params | {"solver": "ralston"})["policy_kwargs"]["solver"] == "ralston"


def test_an_interpolation_or_a_norm_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Straight(Linear):
        least_order = 4

    monkeypatch.setitem(INTERPOLATIONS, "straight", Straight)
    monkeypatch.setitem(FEATURE_NORMS, "halved", lambda features: features / 2)
    kwargs = {"interpolation": "straight", "feature_norm": "halved", "solver": "rk4"}
    RecurrentPPO("NCDEPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu", policy_kwargs=kwargs).learn(8)
    with pytest.raises(ValueError, match=r"interpolation='cubic' is not one of .*straight"):
        NCDEArguments(interpolation="cubic")
    with pytest.raises(ValueError, match=r"feature_norm='batch' is not one of .*halved"):
        NCDEArguments(feature_norm="batch")
    with pytest.raises(ValueError, match=r"solver='euler' with interpolation='straight'.*'rk4'"):
        NCDEArguments(interpolation="straight", solver="euler")
    trial = optuna.create_study().ask()
    sample_ppo_ncde_params(trial, 1, 1, {}, {"interpolation": "straight", "solver": "rk4"})
    assert "solver" not in trial.params  # of one solver that is able there is nothing to choose
