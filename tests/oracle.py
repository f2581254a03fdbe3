"""The seed system's numbers: what ``NCDEActorCriticPolicy`` of lerax 0.0.4 computes (``tests/data/*.npz``).

Keys: ``w/<name>`` are weights, with <name> ``encoder.initial.{i}``, ``encoder.field.{i}``, ``value_head.{i}``,
``action_head.mlp.{i}``, ``action_head.out`` (each .weight and .bias) and ``action_head.log_std``; ``obs`` and ``act``
one episode; ``<mode>/<output>`` and ``<mode>/grad_{last,sum}/<name>`` what was made of it. ``exact.npz`` has
``<case>/z`` and ``<case>/value`` of an independent solution.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from torch.func import functional_call

from sb3_ncde import NCDEPolicy, presets
from sb3_ncde.cde.solvers import Solver

DATA = Path(__file__).parent / "data"
CASES = sorted(path.stem.removeprefix("ncde_") for path in DATA.glob("ncde_*.npz"))


class Heads(th.nn.Module):
    """What the policy makes of one episode: its features, values, log-probabilities and entropies."""

    def __init__(self, policy: NCDEPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, rows: th.Tensor, actions: th.Tensor) -> dict[str, th.Tensor]:
        """Score the actions of one episode; rows are features and time, (T, D + 1)."""
        encoder = self.policy.lstm_actor
        empty = rows.new_zeros(1, 1, encoder.hidden_size)
        features = encoder(rows, (empty, empty), rows.new_zeros(len(rows)))[0]
        distribution = self.policy._distribution(features, rows)
        return {
            "features": features,
            "value": self.policy._value(features).flatten(),
            "log_prob": distribution.log_prob(actions),
            "entropy": distribution.entropy(),
        }


class Oracle:
    """One fixture, and this package's policy with its weights, in float64."""

    def __init__(self, case: str, folder: Path = DATA) -> None:
        self.npz = np.load(folder / f"ncde_{case}.npz")
        config = json.loads(str(self.npz["meta"]))["config"]
        self.weights = {
            name[2:]: th.tensor(self.npz[name], requires_grad=True) for name in self.npz.files if name.startswith("w/")
        }
        initial, field = self.layers("encoder.initial"), self.layers("encoder.field")
        value, action = self.layers("value_head"), self.layers("action_head.mlp")
        self.discrete = "action_head.log_std" not in self.weights
        n_actions = len(self.weights["action_head.out.weight"])
        arguments: dict[str, Any] = presets.lerax(
            latent_size=len(initial[-1][0]),
            field_width=len(field[0][0]),
            field_depth=len(field) - 1,
            initial_width=len(initial[0][0]),
            initial_depth=len(initial) - 1,
            value_width=len(value[0][0]),
            value_depth=len(value) - 1,
            action_width=len(action[0][0]),
            action_depth=len(action) - 1,  # the last of these layers has no activation: see parameters()
            history_length=config["history_length"],
        )
        self.policy = NCDEPolicy(
            spaces.Box(-np.inf, np.inf, self.npz["obs"].shape[1:]),
            spaces.Discrete(n_actions) if self.discrete else spaces.Box(-1, 1, (n_actions,)),
            lambda _: 0.0,
            **arguments,
        ).double()
        self.rows = th.tensor(np.column_stack((self.npz["obs"], np.ones(len(self.npz["obs"])))))
        self.actions = th.tensor(self.npz["act"])
        if not self.discrete:
            self.actions = self.actions.view(-1, n_actions)

    def layers(self, name: str) -> list[tuple[th.Tensor, th.Tensor]]:
        """Return weight and bias of each layer of a network."""
        count = sum(key.startswith(f"{name}.") and key.endswith(".weight") for key in self.weights)
        return [(self.weights[f"{name}.{i}.weight"], self.weights[f"{name}.{i}.bias"]) for i in range(count)]

    def parameters(self) -> dict[str, th.Tensor]:
        """Return the policy's parameters as functions of the fixture's weights."""
        value, action = self.layers("value_head"), self.layers("action_head.mlp")
        (weight, bias), out = action.pop(), self.weights["action_head.out.weight"]
        # Two linear layers with nothing between them are one.
        action_net = (out @ weight, out @ bias + self.weights["action_head.out.bias"])
        every = {
            **{f"lstm_actor.initial.{2 * i}": layer for i, layer in enumerate(self.layers("encoder.initial"))},
            **{f"lstm_actor.field.layers.{i}": layer for i, layer in enumerate(self.layers("encoder.field"))},
            **{f"mlp_extractor.value_net.{2 * i}": layer for i, layer in enumerate(value[:-1])},
            **{f"mlp_extractor.policy_net.{2 * i}": layer for i, layer in enumerate(action)},
            "value_net": value[-1],
            "action_net": action_net,
        }
        parameters = {
            f"policy.{name}.{part}": tensor
            for name, layer in every.items()
            for part, tensor in zip(("weight", "bias"), layer, strict=True)
        }
        if not self.discrete:
            parameters["policy.log_std"] = self.weights["action_head.log_std"].view(-1)
        return parameters

    def scores(self, solver: Solver) -> dict[str, th.Tensor]:
        """Return what the policy computes, with z, when its encoder has this solver."""
        self.policy.lstm_actor.solver = solver
        parameters = self.parameters()
        assert {f"policy.{name}" for name, _ in self.policy.named_parameters()} == parameters.keys()
        arguments = (self.rows, self.actions)
        scores: dict[str, th.Tensor] = functional_call(Heads(self.policy), parameters, arguments)
        return scores | {"z": th.atanh(scores["features"])}

    def gradients(self, objective: th.Tensor) -> dict[str, th.Tensor]:
        """Return the objective's gradient of each of the fixture's weights."""
        gradients = th.autograd.grad(objective, list(self.weights.values()), retain_graph=True)
        return dict(zip(self.weights, gradients, strict=True))

    def error(self, mode: str, which: str, gradients: dict[str, th.Tensor]) -> float:
        """Return the norm of the difference from the fixture's gradients, relative to their norm, over all weights."""
        expected = th.cat([th.tensor(self.npz[f"{mode}/{which}/{name}"]).flatten() for name in gradients])
        found = th.cat([gradient.flatten() for gradient in gradients.values()])
        return float((found - expected).norm() / expected.norm())
