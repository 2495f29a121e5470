"""What every kind of training shares: model, flat parameters, optimiser, and their exact saving and resuming."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from r1kit.models.loading import load_model, write_model
from r1kit.models.lora import LoRAModel
from r1kit.models.own_tokenizer import check_fingerprint
from r1kit.training import checkpoints
from r1kit.training.beside import compiled
from r1kit.training.optim import FlatParameters, OptimizerSettings, make_optimizer
from r1kit.training.optim_native import make_native_optimizer
from r1kit.training.parallel import World


class Session:
    """One training stage on one rank.

    `directory` is the stage's checkpoint directory. Where it holds a finished checkpoint the session starts from it
    (`start_step` steps are done, `state` is what was saved with it); else it starts from `fresh_model()`, which lies
    on the rank's device. `load` and `write` are given where the model is no language model (models/heads.py), `adapt`
    where adapters on `fresh_model()` are trained (models/lora.py). `native`: the type of products of the compiled
    pass, or "off".
    """

    def __init__(
        self,
        directory: Path,
        world: World,
        optimizer: OptimizerSettings,
        fresh_model: Callable[[], Any],
        tokenizer: PreTrainedTokenizerBase,
        *,
        dtype: str,
        keep_checkpoints: int,
        load: Callable[..., Any] = load_model,
        write: Callable[..., None] = write_model,
        adapt: Callable[[Any], LoRAModel] | None = None,
        native: str = "off",
    ) -> None:
        self.directory, self.world, self.tokenizer = directory, world, tokenizer
        self.keep_checkpoints, self.write = keep_checkpoints, write
        found = checkpoints.latest_checkpoint(directory)
        if found is not None:
            check_fingerprint(tokenizer, found)
        # Adapters stand on the model that the stage started from; the checkpoint's own is the merged one.
        self.model: Any = load(found, dtype=dtype, device=world.device) if found and adapt is None else fresh_model()
        if adapt is not None:
            self.model = adapt(self.model)
        self.flat = FlatParameters(self.model, world, common=native != "off")
        # What training calls: the model, or its compiled form where the recipe asks for it.
        self.network: Any = compiled(self.model, native, self.flat)
        if native == "off":
            self.optimizer = make_optimizer(self.flat, optimizer, world)
        else:
            self.optimizer = make_native_optimizer(self.flat, optimizer, world, native)
        self.resumed = found is not None
        self.start_step = 0
        self.state: dict[str, Any] = {}
        self.extra: dict[str, Tensor] = {}
        if found:
            tensors, self.state = checkpoints.load_state(found)
            self.start_step = int(self.state["step"])
            self._restore(tensors)

    @property
    def last_recorded(self) -> int:
        """The last step whose records stand; what was recorded after it is done again. -1 where nothing stands."""
        return self.start_step if self.resumed else -1

    def _restore(self, tensors: Mapping[str, Tensor]) -> None:
        if self._trained in tensors:
            self.flat.master.copy_(tensors[self._trained])
            self.flat.publish()
            self._merge()

        def under(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.optimizer.load_state(under("optimizer."))
        self.extra = under("extra.")

    def save(
        self,
        step: int,
        state: Mapping[str, Any],
        extra: Mapping[str, Tensor] | None = None,
        protected: Collection[int] = (),
    ) -> Path:
        """Checkpoint after `step` steps; rank 0 writes, the others wait.

        `extra`: the stage's own arrays by name; `protected`: steps whose checkpoints stay, however old.
        """
        path = checkpoints.checkpoint_path(self.directory, step)
        if self.world.is_main:
            tensors = {f"optimizer.{name}": tensor for name, tensor in self.optimizer.state().items()}
            tensors |= {f"extra.{name}": tensor for name, tensor in (extra or {}).items()}
            if not self.flat.shared or isinstance(self.model, LoRAModel):
                tensors[self._trained] = self.flat.master
            checkpoints.save_checkpoint(
                self.directory,
                step,
                write_model=lambda target: self.write(self.model, self.tokenizer, target),
                tensors=tensors,
                state=state,
                keep=self.keep_checkpoints,
                protected=protected,
            )
        self.world.barrier("checkpoint")
        return path

    def reduce_gradients(self) -> None:
        """Sum the gradient over ranks; losses are already divided by global denominators."""
        self.world.all_reduce_(self.flat.grad, "gradients")

    def step_(self, lr_scale: float) -> None:
        """One optimiser step on the gradient as it is."""
        self.optimizer.step_(lr_scale)
        self._merge()

    @property
    def _trained(self) -> str:
        """What `flat.master` is called in a checkpoint: the float32 weights of the saved model, or its adapters."""
        return "adapters" if isinstance(self.model, LoRAModel) else "master"

    def _merge(self) -> None:
        if isinstance(self.model, LoRAModel):
            self.model.merge_()
