"""How many operations a step of a rollout and a minibatch of an update are: what they cost, whatever the machine.

A change that needs a tenth more of either fails here. If it is worth it, the numbers are what is to be changed.
"""

from typing import Any

import numpy as np
import pytest
import torch as th
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from torch.utils._python_dispatch import TorchDispatchMode

import sb3_ncde  # noqa: F401

MARGIN = 1.1


class Counted(np.ndarray[Any, Any]):
    """An array whose operations, and those of what is made of it, are counted."""

    operations = 0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        Counted.operations += 1
        plain = [value.view(np.ndarray) if isinstance(value, Counted) else value for value in inputs]
        if out is not None:
            kwargs["out"] = tuple(value.view(np.ndarray) if isinstance(value, Counted) else value for value in out)
        return counted(getattr(ufunc, method)(*plain, **kwargs))

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        Counted.operations += 1
        return counted(super().__array_function__(function, (np.ndarray,), args, kwargs))

    def __getitem__(self, key: Any) -> Any:
        if not all(
            isinstance(part, slice | int | None | type(...)) for part in (key if isinstance(key, tuple) else (key,))
        ):
            Counted.operations += 1  # one that copies
        return super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        Counted.operations += 1
        super().__setitem__(key, value)


def counted(values: Any) -> Any:
    """Return an array whose operations are counted; other values as they are."""
    return values.view(Counted) if isinstance(values, np.ndarray) else values


class InPyTorch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations of PyTorch, those of the backward pass among them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return function(*args, **(kwargs or {}))


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An agent after its first rollout, whose arrays are counted from now on."""
    env = make_vec_env("sb3_ncde/CartPoleNoVel-v1", 4, seed=0)
    model: Any = RecurrentPPO("NCDEPolicy", env, n_steps=32, batch_size=128, n_epochs=1, seed=0, device="cpu").learn(
        128
    )
    for name in ("empty", "zeros"):
        plain = getattr(np, name)
        monkeypatch.setattr(np, name, lambda *args, plain=plain, **kwargs: counted(plain(*args, **kwargs)))
    monkeypatch.setattr(th.distributions.Distribution, "_validate_args", False)  # some libraries set it
    as_numpy = th.Tensor.numpy
    monkeypatch.setattr(th.Tensor, "numpy", lambda tensor, **kwargs: counted(as_numpy(tensor, **kwargs)))
    return model


def test_operations_of_a_step(model: Any) -> None:
    policy, env = model.policy, model.env
    policy.set_training_mode(False)
    observation = th.as_tensor(env.reset())
    states, starts = model._last_lstm_states, th.ones(4)
    counts = []
    for _ in range(17):
        Counted.operations = 0
        with th.no_grad(), InPyTorch() as in_pytorch:
            _, _, _, states = policy.forward(observation, states, starts)
        counts.append((Counted.operations, in_pytorch.operations))
        starts = th.zeros(4)
    in_numpy, in_pytorch_ = np.mean(counts[1:], axis=0)
    assert 0.8 * 72 < in_numpy < MARGIN * 72
    assert 0.8 * 16 < in_pytorch_ < MARGIN * 16


def test_operations_of_a_minibatch(model: Any) -> None:
    model.policy.set_training_mode(True)
    (data,) = model.rollout_buffer.get(128)
    Counted.operations = 0
    with InPyTorch() as in_pytorch:
        values, log_prob, entropy = model.policy.evaluate_actions(
            data.observations, data.actions.long().flatten(), data.lstm_states, data.episode_starts
        )
        (values.mean() + log_prob.mean() + entropy.mean()).backward()
    assert 0.8 * 243 < Counted.operations < MARGIN * 243
    assert 0.8 * 233 < in_pytorch.operations < MARGIN * 233
