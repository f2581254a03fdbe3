"""Sets of ``policy_kwargs`` with a name."""

from typing import Any

from torch import nn


def lerax(**overrides: Any) -> dict[str, Any]:
    """Return the ``policy_kwargs`` of the architecture of ``lerax.policy.NCDEActorCriticPolicy`` (lerax 0.0.4).

    Its solver is an adaptive one of low accuracy; rk4, one step per observation, has about the same error on the same
    path. What lerax computes wrongly (the value of a bootstrap without its tanh) is not reproduced, nor is its bare
    linear layer in the action head, which ``action_depth=0`` comes nearest to. Time is none of its channels: where it
    is irregular and observed (``time_key``), pass ``time_channel=True`` as well.

    :param overrides: arguments that differ from lerax's defaults; ``net_arch`` stands for all sizes of the heads
    """
    preset = {
        "latent_size": 4,
        "field_width": 8,
        "field_depth": 1,
        "initial_width": 16,
        "initial_depth": 1,
        "value_width": 16,
        "value_depth": 1,
        "action_width": 16,
        "action_depth": 1,
        "history_length": 4,
        "hop_length": 1,
        "solver": "rk4",
        "interpolation": "hermite",
        "time_channel": False,
        "scale_increments": False,
        "rates": False,
        "path_in_field": False,
        "feature_norm": "tanh",
        "skip": False,
        "share_encoder": True,
        "control_size": None,
        "activation_fn": nn.ReLU,
        "ortho_init": False,
    }
    if overrides.get("net_arch") is not None:
        for size in ("value_width", "value_depth", "action_width", "action_depth"):
            del preset[size]
    return preset | overrides
