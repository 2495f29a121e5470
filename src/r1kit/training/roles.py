"""The models beside the policy: reference, critic, process reward model. Made together, saved and restored together."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from r1kit.algorithms.entropy_control import entropy_coefficient
from r1kit.models.loading import load_model
from r1kit.models.lora import BaseOf, LoRAModel
from r1kit.training.beside import compiled, under
from r1kit.training.critic import Critic
from r1kit.training.process_reward import ProcessReward
from r1kit.training.session import Session


@dataclass
class EntropyControl:
    """The coefficient of the entropy bonus: `kept` is carried on, `acting` is what the next step uses."""

    kept: float = 0.0
    acting: float = 0.0

    @classmethod
    def start(cls, settings: Any) -> EntropyControl:
        """An adapting bonus does not act before entropy was measured once."""
        return cls(settings.coef, 0.0 if settings.target else settings.coef)

    def observe(self, entropy: float, settings: Any) -> None:
        """Adapt to the entropy of the step just done."""
        if settings.target is not None:
            self.acting, self.kept = entropy_coefficient(
                self.kept, entropy, target=settings.target, delta=settings.delta, maximum=settings.maximum
            )


@dataclass
class Roles:
    """What an update needs beside the session. `reference`: never trained, None where nothing is compared with it."""

    reference: Any = None
    critic: Critic | None = None
    process: ProcessReward | None = None
    entropy: EntropyControl = field(default_factory=EntropyControl)
    native: str = "off"
    _compiled_reference: Any = None

    @property
    def reference_network(self) -> Any:
        """The reference as it runs: compiled where the stage is; without gradient only."""
        if self.native != "off" and self._compiled_reference is None:
            self._compiled_reference = compiled(self.reference, self.native)
        return self._compiled_reference or self.reference

    @classmethod
    def open(cls, phases: Sequence[Any], model_path: Path, session: Session, dtype: str) -> Roles:
        """The roles that any of the stage's `phases` (settings, of each phase of its schedule and the end of its ramps)
        needs, as the session's checkpoint left them, else fresh from `model_path`."""
        first = phases[0]
        algorithm, optimizer, world = first.algorithm, first.optimizer, session.world
        native, tokenizer = first.native, session.tokenizer
        roles = cls(entropy=EntropyControl.start(algorithm.entropy), native=native)
        if any(phase.algorithm.kl_coef for phase in phases):
            lora = isinstance(session.model, LoRAModel)
            roles.reference = (
                BaseOf(session.model) if lora else load_model(model_path, dtype=dtype, device=world.device)
            )
        if algorithm.critic is not None:
            roles.critic = Critic(algorithm.critic, optimizer, session.model, model_path, world, dtype, native)
        if algorithm.process is not None:
            settings = algorithm.process
            roles.process = ProcessReward(settings, optimizer, model_path, tokenizer, world, dtype, native)
        roles._restore(session.extra, session.state, session.model)
        return roles

    def _restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any], policy: Any) -> None:
        saved = {role: under(f"{role}.", tensors) for role in ("reference", "critic", "process")}
        if self.reference is not None and saved["reference"]:
            if isinstance(self.reference, BaseOf):  # once refreshed it has adapters of its own
                self.reference = copy.deepcopy(policy)
            with torch.no_grad():
                for name, parameter in self.reference.named_parameters():
                    parameter.copy_(saved["reference"][name])
            _merged(self.reference)
        if self.critic is not None and saved["critic"]:
            self.critic.restore(saved["critic"])
        if self.process is not None and saved["process"]:
            self.process.restore(saved["process"])
        if "entropy_control" in state:
            self.entropy = EntropyControl(*state["entropy_control"])

    def tensors(self, algorithm: Any) -> dict[str, Tensor]:
        """What a checkpoint has to hold; a reference that never changes is read from where the stage started."""
        found: dict[str, Tensor] = {}
        changed = self.reference is not None and not isinstance(self.reference, BaseOf)
        if changed and algorithm.reference_refresh:
            found |= {f"reference.{name}": p for name, p in self.reference.named_parameters()}
        for name, role in (("critic", self.critic), ("process", self.process)):
            if role is not None:
                found |= {f"{name}.{key}": tensor for key, tensor in role.tensors().items()}
        return found

    def state(self) -> dict[str, Any]:
        """The plain part of it."""
        return {"entropy_control": [self.entropy.kept, self.entropy.acting]}

    def refresh(self, step: int, algorithm: Any, policy: Any) -> None:
        """Reference := policy where `step` steps are a multiple of `reference_refresh`."""
        every = algorithm.reference_refresh
        if self.reference is not None and every and step % every == 0:
            self.reference = copy.deepcopy(policy)
            self._compiled_reference = None


def _merged(model: Any) -> None:
    if isinstance(model, LoRAModel):
        model.merge_()
