"""The encoder of an exported agent: what a step in NumPy has to know of it, from the tree of the file and back."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from sb3_ncde.acting.description import Description, Weights
from sb3_ncde.acting.networks import Layer
from sb3_ncde.acting.tableaus import Tableau
from sb3_ncde.history.layout import Layout
from sb3_ncde.history.traces import Traces
from sb3_ncde.history.window_rule import WindowRule

Tree = dict[str, Any]


def described(description: Description, weights: Weights) -> Tree:
    """Return an encoder as plain values and arrays.

    :param description: of the encoder
    :param weights: of it
    """
    chosen = asdict(description) | {"tableau": description.tableau._asdict()}
    return {"description": chosen, "weights": _copied(weights._asdict())}


def _copied(node: Any) -> Any:
    """Return a tree with copies of its arrays, in float32, and layers as dicts."""
    if isinstance(node, Layer):
        return _copied(node._asdict())
    if isinstance(node, Mapping):
        return {name: _copied(part) for name, part in node.items()}
    if isinstance(node, tuple):
        return [_copied(part) for part in node]
    return None if node is None else np.ascontiguousarray(node, np.float32).copy()


def description_of(tree: Tree) -> Description:
    """Return the description of an encoder that :func:`described` has made plain."""
    chosen = dict(tree["description"])
    layout, tableau = dict(chosen.pop("layout")), dict(chosen.pop("tableau"))
    traces = layout.pop("traces")
    if traces is not None:
        traces = Traces(**traces | {"time_constants": tuple(traces["time_constants"])})
    rule = WindowRule(**layout.pop("rule"))
    tableau["matrix"] = tuple(map(tuple, tableau["matrix"]))
    return Description(layout=Layout(rule=rule, traces=traces, **layout), tableau=Tableau(**tableau), **chosen)


def weights_of(tree: Tree) -> Weights:
    """Return the weights of an encoder that :func:`described` has made plain."""
    return Weights(**{name: _layers(part) for name, part in tree["weights"].items()})


def _layers(node: Any) -> Any:
    if isinstance(node, list):
        return tuple(Layer(**layer) for layer in node)
    return Layer(**node) if isinstance(node, dict) else node
