"""export_numpy and export_onnx: a trained agent as one file, which is compared with it before it is written."""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecNormalize

from sb3_ncde.deploy.agent import Agent
from sb3_ncde.deploy.contents import Tree, as_read, digest, metadata_of, replaced, without_arrays, write
from sb3_ncde.deploy.episodes import Episodes, recorded, sampled
from sb3_ncde.deploy.model import raw_observations, tree_of
from sb3_ncde.deploy.observation import SINGLE
from sb3_ncde.deploy.parity import Outputs, Parity
from sb3_ncde.deploy.reference import outputs_in_pytorch
from sb3_ncde.envs.normalization import refuse_missing_statistics
from sb3_ncde.plain_values import check_integer, check_positive
from sb3_ncde.policies import NCDEPolicy
from sb3_ncde.vec_history import normalize_inside

BATCHES = (1, 3, 5)
"""Environments side by side, in each comparison."""
LARGE = 100.0
"""Size of some observations, as a multiple of the usual: a network may do something else with them, as to clip."""
Runtime = Callable[[Episodes], Iterator[Outputs]]
"""Acts through episodes, and yields its outputs step by step."""


class Comparison(NamedTuple):
    """How an exported agent is compared with its model before a file is written.

    Always they go through random episodes in 1, 3 and 5 environments, with resets, irregular times and missing values.

    :param env: an environment with raw observations, in which they are compared as well; None: in none
    :param n_episodes: in it
    :param tolerance: of the largest difference, relative to numbers above 1
    """

    env: gym.Env[Any, Any] | None = None
    n_episodes: int = 3
    tolerance: float = 1e-5


def export_numpy(
    model: BaseAlgorithm, path: str | PathLike[str], vec_normalize: VecNormalize | None = None, **comparison: Any
) -> dict[str, Any]:
    """Write a trained agent to an ``.npz``, for :class:`sb3_ncde.deploy.Agent`.

    :param model: RecurrentPPO with an NCDEPolicy, or an agent of :func:`sb3_ncde.with_memory`
    :param path: of the file
    :param vec_normalize: of the training; None: that of the model's environments, if they have one
    :param comparison: env, n_episodes and tolerance, see :class:`Comparison`
    :return: the metadata that stand in the file
    :raises CannotExportError: for what a file cannot say
    :raises ParityError: if PyTorch and NumPy differ by more than the tolerance; then there is no file
    """
    file, how = _looked_at(path, comparison)
    source = Source(model, vec_normalize)
    _compare(source, {"NumPy": in_numpy(source.tree)}, how)
    write(file, source.tree)
    return metadata_of(source.tree)


def export_onnx(
    model: BaseAlgorithm, path: str | PathLike[str], vec_normalize: VecNormalize | None = None, **comparison: Any
) -> dict[str, Any]:
    """Write a trained agent to an ONNX file: raw observations and its history in, the action and its history out.

    Its inputs and outputs are in docs/deployment.md. It needs the extra ``onnx``.

    :param model: as for :func:`export_numpy`, and so are the other arguments
    :param path: of the file
    :return: the metadata that stand in the file
    :raises CannotExportError: for what a file cannot say
    :raises ParityError: if PyTorch, NumPy and ONNX Runtime differ by more than the tolerance; then there is no file
    """
    from sb3_ncde.deploy.graph import described, graph_of
    from sb3_ncde.deploy.onnx_runtime import in_onnx_runtime

    place, how = _looked_at(path, comparison)
    source = Source(model, vec_normalize)
    tree, graph = source.tree, graph_of(source.tree)
    runtimes = {"NumPy": in_numpy(tree), "ONNX Runtime": in_onnx_runtime(graph.SerializeToString(), tree)}
    _compare(source, runtimes, how)
    with replaced(place) as file:
        file.write(described(graph, tree).SerializeToString())
    return metadata_of(tree)


def _looked_at(path: str | PathLike[str], comparison: dict[str, Any]) -> tuple[Path, Comparison]:
    """Return where an agent is to be written, and how it is compared; raise an error before any work is done."""
    how = Comparison(**comparison)
    check_integer("n_episodes", how.n_episodes, minimum=1)
    check_positive("tolerance", how.tolerance, "the largest difference from PyTorch")
    if not Path(path).parent.is_dir():
        raise FileNotFoundError(f"There is no folder {Path(path).parent}.")
    return Path(path), how


def in_numpy(tree: Tree) -> Runtime:
    """Return what acts through episodes in NumPy."""

    def run(episodes: Episodes) -> Iterator[Outputs]:
        agent = Agent(tree)
        for step, starts in enumerate(episodes.starts):
            agent.reset(starts)
            outputs = agent.step(_as_given(episodes.at(step), tree))
            yield outputs | {"next_history": agent.state}

    return run


def _as_given(observation: Mapping[str, Any], tree: Tree) -> Any:
    return observation if tree["is_dict"] else observation[SINGLE]


class Source:
    """What is exported: a model, its normalisation, and the tree that is made of both.

    :param model: that is exported
    :param vec_normalize: of the training; None: that of the model's environments, if they have one
    """

    def __init__(self, model: BaseAlgorithm, vec_normalize: VecNormalize | None) -> None:
        if not isinstance(vec_normalize, VecNormalize | None):
            raise TypeError(
                f"vec_normalize is a {type(vec_normalize).__name__}: pass the VecNormalize of the training."
            )
        found = model.get_vec_normalize_env() if vec_normalize is None else vec_normalize
        refuse_missing_statistics(model, found)
        if found is None and model.get_env() is None:
            warnings.warn(
                "The model has no environments, so that its normalisation is not known, and the exported agent has "
                "none. If it was trained in VecNormalize, pass that as vec_normalize; if it was not, pass an "
                "environment to load().",
                stacklevel=3,
            )
        inner = normalize_inside(found)
        self.normalize: VecNormalize | None = inner
        self.space = raw_observations(model, inner)
        self.policy = _copied(model.policy)
        if not isinstance(self.policy, NCDEPolicy):
            self.policy.set_training_mode(False)  # as predict() does, which has NCDEExtractor put its scale to use
        self.tree = as_read(tree_of(type(model).__name__, self.policy, self.space, inner))
        self.tree["sha256"] = digest(without_arrays(self.tree)[1])

    def run(self, episodes: Episodes) -> Iterator[Outputs]:
        """Act through episodes in PyTorch."""
        return outputs_in_pytorch(self.policy, self.normalize, self.space, self.tree, episodes)


def _copied(policy: BasePolicy) -> BasePolicy:
    """Return a copy of a policy: who acts is watched, and the model is to know nothing of this."""
    # What distributions hold of the last action has gradients, which cannot be copied; it is not needed either.
    distributions = [vars(module)["action_dist"] for module in policy.modules() if "action_dist" in vars(module)]
    return copy.deepcopy(policy, {id(distribution): copy.copy(distribution) for distribution in distributions})


def _compare(source: Source, runtimes: Mapping[str, Runtime], comparison: Comparison) -> None:
    """Let PyTorch and other runtimes act through the same episodes, and note in the tree by how much they differ."""
    tree, rng = source.tree, np.random.default_rng(0)
    n_steps = 3 * tree["encoder"]["description"]["layout"]["rule"]["history_length"] + 8
    episodes = [(1.0, sampled(source.space, tree, n_envs, n_steps, rng)) for n_envs in BATCHES]
    episodes.append((LARGE, sampled(source.space, tree, BATCHES[-1], n_steps, rng, LARGE)))
    if comparison.env is not None:
        episodes.append((1.0, recorded(comparison.env, _actor(tree), comparison.n_episodes)))
    parity = Parity(comparison.tolerance)
    for size, each in episodes:
        for expected, *others in zip(source.run(each), *(run(each) for run in runtimes.values()), strict=True):
            for name, found in zip(runtimes, others, strict=True):
                parity.compare(name, expected, found, tree["action"], size)
    rows = sum(each.starts.size for _, each in episodes)
    tree["parity"] = {"observations": rows, "tolerance": parity.tolerance, "largest_difference": parity.largest}
    print(f"Largest difference from PyTorch, of {rows} observations: {parity}")
    parity.check()


def _actor(tree: Tree) -> Callable[[Any, bool], Any]:
    """Return what acts in one environment."""
    agent = Agent(tree)

    def act(observation: Any, begins: bool) -> Any:
        if begins:
            agent.reset()
        return agent.act(observation)

    return act
