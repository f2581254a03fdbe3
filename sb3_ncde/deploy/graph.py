"""An exported agent as an ONNX graph: one step of N environments, with the history going in and coming out."""

import json
from typing import Any

import ndonnx as ndx
import onnx

from sb3_ncde.deploy.contents import Tree, metadata_of
from sb3_ncde.deploy.encoding import description_of, weights_of
from sb3_ncde.deploy.heads import Action, Heads
from sb3_ncde.deploy.layers import CannotExportError
from sb3_ncde.deploy.observation import Clock, Input, features_of
from sb3_ncde.deploy.onnx_arrays import ONNX
from sb3_ncde.deploy.solution import encode
from sb3_ncde.deploy.window import append

EPISODE_START, HISTORY, NEXT_HISTORY = "episode_start", "history", "next_history"
BATCH = "N"
"""Name of the number of environments, in the shapes of the graph."""
NETWORKS = ("features", "encoder", "value_encoder", "heads")
"""Parts of the tree that are in the graph itself, and not among its metadata."""


def graph_of(tree: Tree) -> onnx.ModelProto:
    """Return the graph of an agent.

    :param tree: of the agent
    :raises CannotExportError: for an observation whose key is the name of another input, or of an output
    """
    inputs, clock = [Input(**part) for part in tree["inputs"]], Clock(**tree["clock"])
    mask = None if tree["mask"] is None else Input(**tree["mask"])
    heads, action = Heads(**tree["heads"]), Action(**tree["action"])
    description = description_of(tree["encoder"])
    layout = description.layout

    given = {part.name: _argument(part) for part in (*inputs, *([] if mask is None else [mask]))}
    own: dict[str, Any] = {EPISODE_START: ndx.argument(shape=(BATCH,), dtype=ndx.bool)}
    if clock.input is not None:
        own[clock.input] = ndx.argument(shape=(BATCH,), dtype=ndx.float32)
    own[HISTORY] = ndx.argument(shape=(BATCH, layout.packed_size), dtype=ndx.float32)
    taken = {*own, "action", "value", heads.parameters, "log_std", NEXT_HISTORY}
    if given.keys() & taken:
        raise CannotExportError(
            f"The observation has the keys {sorted(given.keys() & taken)}, which are names of other inputs, or of "
            f"outputs, of the ONNX graph, {', '.join(sorted(taken))}: rename them in the environment."
        )

    features, time = features_of(ONNX, inputs, tree["features"], clock, given)
    if time is None:
        time = own[str(clock.input)]
        if clock.key is None:
            time = time / clock.unit
    window = append(ONNX, layout, own[HISTORY], features, time, own[EPISODE_START])
    seen = encode(ONNX, description, weights_of(tree["encoder"]), window)
    allowed = None if mask is None else ONNX.flatten(mask.shown(ONNX, given[mask.name]))
    outputs = heads.act(ONNX, action, seen, allowed)
    if tree["value_encoder"] is not None:
        judging = tree["value_encoder"]
        seen = encode(ONNX, description_of(judging), weights_of(judging), window)
    outputs |= heads.judge(ONNX, seen) | {NEXT_HISTORY: window.packed}
    return ndx.build(given | own, outputs)


def _argument(part: Input) -> Any:
    return ndx.argument(shape=(BATCH, *part.shape), dtype=getattr(ndx, part.dtype))


def described(model: onnx.ModelProto, tree: Tree) -> onnx.ModelProto:
    """Return a graph with metadata, and with the number of environments in the shapes of its outputs."""
    plain = {name: part for name, part in metadata_of(tree).items() if name not in NETWORKS}
    model.producer_name, model.producer_version = "sb3_ncde", tree["versions"]["sb3-ncde"]
    onnx.helper.set_model_props(model, {name: _text(part) for name, part in plain.items()})
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[0].dim_param = BATCH
    return model


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
