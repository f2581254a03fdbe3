"""An exported agent in ONNX Runtime, step by step, as the comparison with PyTorch needs it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime as ort

from sb3_ncde.deploy.contents import Tree
from sb3_ncde.deploy.episodes import Episodes
from sb3_ncde.deploy.graph import EPISODE_START, HISTORY, NEXT_HISTORY
from sb3_ncde.deploy.observation import Clock
from sb3_ncde.history.window_rule import Array


def session_of(graph: bytes) -> ort.InferenceSession:
    """Return a session of one thread, as these networks are small."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def in_onnx_runtime(graph: bytes, tree: Tree) -> Any:
    """Return what acts through episodes in ONNX Runtime."""
    clock = Clock(**tree["clock"])

    def run(episodes: Episodes) -> Iterator[dict[str, Array]]:
        session = session_of(graph)
        names = [output.name for output in session.get_outputs()]
        size = next(part.shape[1] for part in session.get_inputs() if part.name == HISTORY)
        history = np.zeros((episodes.starts.shape[1], size), np.float32)
        for step, starts in enumerate(episodes.starts):
            given = episodes.at(step)
            time = given.pop(clock.key) if isinstance(clock.key, str) else np.full(len(starts), clock.unit)
            if clock.input is not None:
                given[clock.input] = time.reshape(-1).astype(np.float32)
            known = {part.name for part in session.get_inputs()}
            given |= {EPISODE_START: starts, HISTORY: history}
            outputs = dict(zip(names, session.run(names, {name: given[name] for name in known}), strict=True))
            history = outputs[NEXT_HISTORY]
            yield outputs

    return run
