"""NCDEExtractor: the encoder of histories as a features extractor of SB3, for any of its algorithms."""

from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
)
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from sb3_ncde.cde.arguments import EncoderArguments
from sb3_ncde.cde.encoder import NeuralCDE
from sb3_ncde.cde.path import Prepared
from sb3_ncde.history.arguments import HistoryArguments
from sb3_ncde.history.flattening import Flattening
from sb3_ncde.history.space import HistorySpace
from sb3_ncde.history.validation import refuse_to_be_traced
from sb3_ncde.history.window_rule import Array
from sb3_ncde.history.windows import Sequences

WITHOUT_SIZE = (
    "solver",
    "solver_steps",
    "rtol",
    "atol",
    "adjoint",
    "interpolation",
    "scale_increments",
    "feature_norm",
)
"""Arguments of an encoder that set the size of no weight."""


class NCDEExtractor(BaseFeaturesExtractor):
    """Solves a neural controlled differential equation over each of the histories of :class:`sb3_ncde.VecHistory`.

    It is for ``policy_kwargs=dict(features_extractor_class=NCDEExtractor, features_extractor_kwargs=dict(...))`` of any
    algorithm of SB3. All extractors of one policy (actor, critic, targets) have the same scale of increments at any
    time; their weights are their own, or shared, as the policy's ``share_features_extractor`` says.

    :param observation_space: of VecHistory
    :param features_extractor_class: what features are made of each observation with; None: NatureCNN for images,
        CombinedExtractor for a Dict with images, and else the observation itself
    :param features_extractor_kwargs: its arguments
    :param kwargs: arguments of :class:`sb3_ncde.cde.arguments.EncoderArguments`: latent_size, solver, skip and so on
    :raises TypeError: for another observation space, an unknown argument, or a value of another type
    :raises ValueError: for a value out of range
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(observation_space, HistorySpace):
            raise TypeError(
                f"NCDEExtractor reads histories, but the observation space is {observation_space}. Wrap the "
                "environments, as the last wrapper: VecHistory(venv, history_length=...); and so those of an "
                "evaluation. If this policy is for RecurrentPPO, use NCDEPolicy, which needs neither."
            )
        arguments = EncoderArguments(**_known(kwargs))
        remembered, flattening = observation_space.arguments, observation_space.flattening
        extractor = _make_extractor(flattening, features_extractor_class, features_extractor_kwargs or {})
        dim = flattening.features_dim if extractor is None else int(extractor.features_dim)
        if extractor is not None:
            _refuse_beside(type(extractor).__name__, remembered)
        time_scale = remembered.dt if remembered.time_key is None else 1.0
        encoder = NeuralCDE(remembered.make_history(dim), arguments, time_scale)
        super().__init__(observation_space, encoder.output_size)
        self.space = observation_space
        self.extractor = extractor
        self.encoder = encoder
        self._given = frozenset(kwargs)
        self._recent = _Recent()
        self.register_state_dict_pre_hook(_settle)  # type: ignore[no-untyped-call]

    def train(self, mode: bool = True) -> "NCDEExtractor":
        """Choose between learning and acting; SB3 begins a rollout by choosing to act."""
        # Chosen at every call of predict(), and it takes a third of its time to tell modules that do not care.
        if self.training != mode or self.extractor is not None:
            super().train(mode)
        if not mode:
            self.encoder.learning.await_rollout()
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Save, as metadata, all arguments: SB3 saves only those that were given, and a default may change."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination._metadata[prefix[:-1]]["arguments"] = asdict(self.encoder.arguments)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        """Load, with the arguments of the agent that was saved in place of defaults of this version.

        Those are meant that weights do not tell; of another size, PyTorch finds that the weights do not fit.
        """
        saved = local_metadata.get("arguments", {})
        known = {name: saved[name] for name in WITHOUT_SIZE if name in saved and name not in self._given}
        if known:
            self.encoder.adopt(replace(self.encoder.arguments, **known))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args, **kwargs)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """Encode histories.

        :param observations: packed, (rows, P)
        :return: features for the heads, (rows, features_dim)
        :raises ValueError: for rows that are no histories
        :raises RuntimeError: while PyTorch traces
        """
        refuse_to_be_traced("NCDEExtractor")
        packed: Array = observations.numpy(force=True)
        if packed.shape[1:] != self.space.shape:
            raise ValueError(
                f"Histories of {' x '.join(map(str, packed.shape[1:]))} numbers, but this agent's have "
                f"{self.space.shape[0]}: they are of a VecHistory with other arguments."
            )
        check_count(packed[:, 0])
        scale = self.encoder.increment_scale.scale
        if not (th.is_grad_enabled() or self.training):
            seen = self.follow(packed)
            if seen is not None:
                return th.from_numpy(seen).to(observations.device)
        of_data = self.extractor is None and self.encoder.control is None and not observations.requires_grad
        # What is prepared in inference mode cannot be learned from.
        if not of_data or th.is_inference_mode_enabled():
            return self.encoder.encode(self.encoder.prepare(self._sequences(observations)))
        key = packed.tobytes()
        prepared = self._recent.get(key, scale)
        if prepared is None:
            prepared = self.encoder.prepare(self._sequences(observations))
            self._recent.put(key, scale, prepared)
        return self.encoder.encode(prepared)

    def follow(self, packed: Array) -> Array | None:
        """Encode histories that an agent acts on, where each goes on from that of the call before.

        :param packed: (N, P), whose counts are whole numbers from 1
        :return: features for the heads, (N, features_dim), or None: :meth:`forward` needs PyTorch for them
        """
        self.encoder.learning.note_rollout()
        if self.extractor is not None or packed.dtype != np.float32:
            return None
        if self.encoder.increment_scale.scale.dtype != th.float32:
            return None
        return self.encoder.follow(packed)

    def _sequences(self, observations: th.Tensor) -> Sequences:
        """Return histories, (rows, P), as sequences of one step each."""
        layout, scale = self.space.layout, self.encoder.increment_scale.scale
        rows = observations.to(scale.device, scale.dtype)
        packed = rows.numpy(force=True)
        seen = packed[:, :1].astype(np.int64)
        points = layout.rule.points(seen)
        line = packed[:, 2:].reshape(len(packed), -1, layout.slot_size)
        learned = None
        if self.extractor is not None:
            learned = self._extracted(rows, points)
            line = learned.numpy(force=True)
        elif observations.requires_grad:
            learned = rows[:, 2:].reshape(len(rows), -1, layout.slot_size)
        return Sequences(line, seen, points, learned, scale.device)

    def _extracted(self, observations: th.Tensor, points: Array) -> th.Tensor:
        """Return histories of extracted features and elapsed times, (rows, H, features + 1); 0 where there is none."""
        assert self.extractor is not None
        layout = self.space.layout
        slots = observations[:, 2:].reshape(len(observations), -1, layout.slot_size)  # (rows, H, slot_size)
        length = layout.rule.history_length
        used = th.from_numpy(np.arange(length) >= length - points).to(slots.device)  # (rows, H)
        features = self.extractor(self.space.flattening.shown(slots[used][:, :-1]))
        whole = features.new_zeros(*used.shape, features.shape[1]).index_put((used,), features)
        return th.cat((whole, slots[..., -1:]), dim=-1)


class _Recent:
    """What was prepared of the newest minibatches: actor, critic and targets are given the same, in turn.

    A minibatch is known by its bytes. What is prepared of it holds for one scale: the tensor, at one version.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[bytes, th.Tensor, int, Prepared]] = []

    def get(self, key: bytes, scale: th.Tensor) -> Prepared | None:
        """Return what was prepared of the same histories, if the scale has not changed since."""
        for kept, used, version, prepared in self._kept:
            if used is scale and version == scale._version and kept == key:
                return prepared
        return None

    def put(self, key: bytes, scale: th.Tensor, prepared: Prepared) -> None:
        """Keep it beside the one before: of a transition there are two, the observation and the next."""
        self._kept = [*self._kept[-1:], (key, scale, scale._version, prepared)]


def _settle(extractor: NCDEExtractor, *_: Any) -> None:
    """Put what has been learned to use before weights are saved or copied, as acting would: acting changes nothing."""
    extractor.encoder.learning.await_rollout()


def _known(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of an encoder; raise TypeError for another."""
    encoder = [field.name for field in fields(EncoderArguments)]
    for name in kwargs:
        if name in [field.name for field in fields(HistoryArguments)]:
            raise TypeError(f"{name} says what is remembered: give it to VecHistory, not to NCDEExtractor.")
        if name not in encoder:
            raise TypeError(f"NCDEExtractor got an unexpected argument {name!r}. It takes {', '.join(encoder)}.")
    return kwargs


def _make_extractor(
    flattening: Flattening, extractor_class: type[BaseFeaturesExtractor] | None, kwargs: dict[str, Any]
) -> BaseFeaturesExtractor | None:
    """Return what makes features of each observation; None: the observation is its features."""
    space = flattening.shown_space
    if extractor_class is None and flattening.images:
        extractor_class = CombinedExtractor if isinstance(space, spaces.Dict) else NatureCNN
    if extractor_class is not None and not (
        isinstance(extractor_class, type) and issubclass(extractor_class, BaseFeaturesExtractor)
    ):
        raise TypeError(f"features_extractor_class={extractor_class!r}: expected a class of SB3's features extractors.")
    if extractor_class is None or extractor_class.forward is FlattenExtractor.forward:
        if kwargs:
            raise TypeError(
                f"features_extractor_kwargs={kwargs} within features_extractor_kwargs, but no features_extractor_class "
                "that takes them. The encoder's own arguments, such as latent_size, belong one level up."
            )
        return None
    return extractor_class(space, **kwargs)


def _refuse_beside(extractor: str, remembered: HistoryArguments) -> None:
    """Raise ValueError for what cannot be remembered where an extractor makes features of each observation."""
    if remembered.missing_values:
        raise ValueError(
            f"missing_values=True with {extractor}: what is learned of an observation that is not whole is no "
            "observation. Leave out features_extractor_class."
        )
    if remembered.time_constants is not None:
        raise ValueError(
            f"traces with {extractor}: a history has the summary of the observations, not of what is made of each. "
            "Leave out features_extractor_class, or traces."
        )


def check_count(count: Array) -> None:
    """Raise ValueError for histories without an observation, or with a part of one."""
    if (count >= 1).all() and (count == np.rint(count)).all():
        return
    raise ValueError(
        f"A history has a count of {count[~((count >= 1) & (count == np.rint(count)))][0]:g} observations, but the "
        "count is a whole number from 1. If VecNormalize is wrapped around VecHistory, it has normalised counts and "
        "times: put it inside, VecHistory(VecNormalize(venv)); in an RL Zoo entry, leave out normalize."
    )


def _share_scale(module: nn.Module, name: str, part: nn.Module | None) -> None:
    """Let all extractors of one policy share the scale of increments, when one is made a part of it.

    SB3 makes an extractor each for actor, critic and targets, all of the same class and arguments, which learn from the
    same data. It copies weights to targets, and of other numbers those alone that batch norms name.
    """
    if part is None or not isinstance(module, BaseModel):
        return
    new = [found for found in part.modules() if isinstance(found, NCDEExtractor)]
    if not new:
        return
    first = next((found for found in module.modules() if isinstance(found, NCDEExtractor)), new[0])
    for extractor in new:
        if extractor is not first and extractor.space == first.space and not extractor.encoder.has_learned:
            extractor.encoder.share_scale(first.encoder)
            extractor._recent = first._recent


register_module_module_registration_hook(_share_scale)
