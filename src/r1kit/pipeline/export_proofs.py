"""What an export has to show: whose weights it holds, whose it does not, and that Transformers computes the same.

Two files of weights are compared tensor by tensor, so that models larger than the memory can be; the last proof holds
the model twice, in float32.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification
from transformers.utils import logging

from r1kit.models.attention import Segment, packed_attention, positions
from r1kit.models.checkpoint import Source, read_config, read_hf_state, to_hf_state
from r1kit.models.decoder import Decoder
from r1kit.models.heads import ValueModel, load_value_model
from r1kit.models.loading import is_value_model, load_model, load_tokenizer
from r1kit.models.lora import LoRAModel
from r1kit.models.own_tokenizer import require_own_tokenizer, require_rows
from r1kit.pipeline.export_origin import Made, Origin, merge_of
from r1kit.pipeline.files import RunError
from r1kit.training.optim import FlatParameters

# What two float32 computations may differ by: nats in log-probs, or so many times what Transformers' own float32 is
# from its float64. A trained model gives tokens that it rules out tens of nats, and its rounding grows with them.
TOLERANCE, ROUNDINGS = 1e-4, 10.0
TRAINER = "trainer.safetensors"
# Sequences of the text that both compute, and their length.
ROWS, LENGTH = 8, 64
REFUSED = "do not use this export, and report it"


@dataclass(frozen=True)
class Finding:
    """One check: what was found, or where it was not `made`, why it could not be."""

    check: str
    found: str
    made: bool = True

    def sentence(self) -> str:
        return f"{self.check}: {self.found}" if self.made else f"{self.check}: not compared: {self.found}"


def beside_trainer(source: Path, about: Made) -> Finding:
    """The checkpoint's weights against those that its trainer goes on from. RunError where they are others."""
    if merge_of(source) is not None:
        return Finding("trainer", "a merge has none", made=False)
    if not (source / TRAINER).is_file():
        return Finding("trainer", "no state of a trainer lies beside the weights", made=False)
    kept = kept_by_trainer(source)
    if "adapters" in kept:
        found = adapted_model(source, about)
        if isinstance(found, str):
            return Finding("trainer", f"the model under its adapters is not at hand: {found}", made=False)
        return Finding("trainer", f"its adapters on {found[1].path} make these weights")
    if "master" not in kept:
        return Finding("trainer", "it trained these float32 weights themselves")
    dtype = dtype_of(source)
    parameters = [p for p in _load(source, dtype).parameters() if p.requires_grad]
    if sum(p.numel() for p in parameters) != kept["master"].numel() or not _rounds_to(kept["master"], parameters):
        raise RunError(f"{source}: its weights are not those that the trainer of this checkpoint holds: {REFUSED}")
    return Finding("trainer", f"its float32 weights, rounded to {dtype}, are these bit for bit")


def _rounds_to(master: Tensor, parameters: list[Any]) -> bool:
    parts = master.split([p.numel() for p in parameters])
    return all(torch.equal(p.detach().flatten(), part.to(p.dtype)) for p, part in zip(parameters, parts, strict=True))


def adapted_model(source: Path, about: Made) -> tuple[LoRAModel, Origin] | str:
    """The model under the adapters that trained `source`, with these on it; why it is not at hand, where it is not.

    RunError where it is not the model that was saved.
    """
    lora, origin = getattr(about.stage, "lora", None), next(iter(about.origins), None)
    if lora is None or origin is None or origin.unusable:
        return origin.unusable if origin else about.unknown or f"stage {about.name} has no adapters now"
    dtype = dtype_of(source)
    adapted = LoRAModel(load_model(origin.path, dtype=dtype), rank=lora.rank, alpha=lora.alpha)
    flat, saved = FlatParameters(adapted), dict(load_model(source, dtype=dtype).named_parameters())
    adapters = kept_by_trainer(source)["adapters"]
    if flat.master.shape == adapters.shape:
        flat.master.copy_(adapters)
        flat.publish()
        adapted.merge_()
        made_now = dict(adapted.inner.named_parameters())
        if made_now.keys() == saved.keys() and all(
            _rounds_alike(made_now[name], saved[name], name in adapted.targets) for name in saved
        ):
            return adapted, origin
    raise RunError(
        f"{source}: its weights are not those of {origin.path} with the adapters that the trainer of this checkpoint "
        f"holds: {REFUSED}"
    )


def _rounds_alike(one: Tensor, other: Tensor, product: bool) -> bool:
    """Equal, or where a product is in it, as near as another number of threads, which sums in another order, brings."""
    room = 4 * torch.finfo(one.dtype).eps if product else 0.0
    return one.shape == other.shape and torch.allclose(
        one.float(), other.float(), rtol=room, atol=room * one.abs().max().item()
    )


def kept_by_trainer(source: Path) -> dict[str, Tensor]:
    """The weights that a trainer keeps beside those of the checkpoint: float32 ones, or adapters."""
    if not (source / TRAINER).is_file():
        return {}
    with safe_open(source / TRAINER, framework="pt") as handle:
        return {name: handle.get_tensor(name) for name in {"master", "adapters"} & set(handle.keys())}


def beside_origin(source: Path, destination: Path, origin: Origin) -> Finding:
    """The export against a model that it was made from. RunError where nothing differs, or all does that must not."""
    if origin.unusable:
        return Finding(origin.setting, origin.unusable, made=False)
    fresh = _new_tokens(destination, origin)
    shared, differing = 0, []
    with Source(destination) as ours, Source(origin.path) as theirs:
        vocabulary = int(read_config(destination).get("vocab_size") or 0)
        for name, other in _pairs(ours.files, theirs.files).items():
            shared += 1
            left_out = fresh if ours.shape(name)[:1] == (vocabulary,) else []
            if _differ(ours.tensor(name), theirs.tensor(other), left_out):
                differing.append(name)
    if not shared:
        raise RunError(f"{origin.path} has no tensor in common with {source}: name the model that it was trained from")
    if origin.same:
        if differing:
            raise RunError(
                f"{destination}: {', '.join(differing[:3])} differ from {origin.path}, which the merge's settings make "
                f"the whole result: {REFUSED}"
            )
        return Finding(origin.setting, f"equals {origin.path}, as the merge's settings say")
    if not differing:
        why = "nothing was learned, or the wrong weights were saved; look at the run's gradient norm and learning rate"
        if origin.setting != "model":
            why = "the merged models do not differ, or the wrong weights were saved; compare those that went in"
        raise RunError(f"{destination}: its weights equal those of {origin.path}, from which {source} was made: {why}")
    rows = f", the rows of {len(fresh)} new tokens left out" if fresh else ""
    return Finding(origin.setting, f"{len(differing)} of {shared} tensors differ from {origin.path}{rows}")


def _pairs(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, str]:
    """Names of the tensors that both have. A base may be saved without the prefix of the model around it."""
    found = {name: name for name in ours if name in theirs}
    rest = [name for name in theirs if name not in found]
    for name in sorted(set(ours) - set(found)):
        alike = [other for other in rest if name.endswith(f".{other}") or other.endswith(f".{name}")]
        if len(alike) == 1:
            found[name] = alike[0]
    return found


def _differ(ours: Tensor, theirs: Tensor, left_out: list[int]) -> bool:
    """Whether the rows that both have differ, once theirs are rounded as ours are."""
    if ours.shape[1:] != theirs.shape[1:]:
        return True
    rows = min(len(ours), len(theirs)) if ours.ndim else 0
    differing = (ours[:rows] != theirs[:rows].to(ours.dtype)) if ours.ndim else ours != theirs
    if left_out:
        differing[[row for row in left_out if row < rows]] = False
    return bool(differing.any())


def _new_tokens(destination: Path, origin: Origin) -> list[int]:
    """Ids of the tokens that the model had not: their rows were made, not learned, and prove nothing.

    RunError where one that it had has another id now.
    """
    if not (origin.path / "tokenizer_config.json").is_file():
        return []
    mine, before = (load_tokenizer(path).get_vocab() for path in (destination, origin.path))
    moved = sorted((token for token, place in before.items() if mine.get(token) != place), key=before.__getitem__)
    if moved:
        raise RunError(
            f"{destination}: its tokenizer gives {moved[0]!r} the id {mine.get(moved[0])}, that of {origin.path} "
            f"{before[moved[0]]} ({len(moved)} tokens differ): it is not the tokenizer that these weights were trained "
            "with; put that beside them"
        )
    return sorted(set(mine.values()) - set(before.values()))


def beside_transformers(source: Path, destination: Path) -> tuple[float, list[Finding]]:
    """The copy as plain Transformers loads it, against the checkpoint as the trainer does, both in float32.

    Returns the largest difference in log-probs (nats) or values. RunError where a tensor differs or is not there, or
    where the difference is not below what is `allowed`; CheckpointError where `source` cannot be loaded, or the
    tokenizer is not the model's own.
    """
    with quiet():
        ours, tokenizer = _load(source, "float32"), load_tokenizer(destination)
        theirs, loading = _plain(ours, destination)
    if isinstance(ours, ValueModel):
        require_rows(ours.trunk, tokenizer)
    else:
        require_own_tokenizer(ours, tokenizer, destination)
    if missing := sorted(loading["missing_keys"]):
        raise RunError(
            f"{destination}: Transformers finds no {', '.join(missing[:3])} ({len(missing)} missing) and would draw "
            f"them at random: {REFUSED}"
        )
    count = _same_tensors(ours, theirs, source, destination)
    text = spread_tokens(ours.config.vocab_size, min(LENGTH, ours.config.max_positions))
    compare = _value_gap if isinstance(ours, ValueModel) else logprob_gap
    with torch.no_grad():
        # Of tensors, whose largest is not a number where one of them is none.
        gap = float(torch.stack([compare(ours, theirs, ids) for ids in text]).max())
        limit = allowed(gap, theirs, text)
    if not gap < limit:
        raise RunError(
            f"{destination}: Transformers and r1kit differ by {gap:.2g} (expected: less than {limit:.2g}) in "
            f"{'values' if isinstance(ours, ValueModel) else 'log-probs'}: {REFUSED}"
        )
    name = type(theirs).__name__
    found = [Finding("transformers", f"{name} loads all {count} tensors bit for bit{over(text)}")]
    if unread := sorted(loading["unexpected_keys"]):
        found.append(Finding("transformers", f"{name} leaves {', '.join(unread[:3])} ({len(unread)} tensors) unread"))
    config = theirs.config
    if name.endswith("SequenceClassification") and config.pad_token_id in (None, config.eos_token_id):
        what = "no token pads" if config.pad_token_id is None else "one token ends and pads"
        found.append(Finding("padding", f"{what}: {name} scores wrongly in batches; set pad_token_id to another token"))
    return gap, found


@contextmanager
def quiet() -> Iterator[None]:
    """What Transformers and PEFT would warn of is an error here, or no matter: a trunk read without its head."""
    before = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.set_verbosity(before)


def _load(directory: Path, dtype: str) -> Any:
    """The model of a checkpoint as training loads it."""
    return (load_value_model if is_value_model(directory) else load_model)(directory, dtype=dtype)


def dtype_of(directory: Path) -> str:
    raw = read_config(directory)
    return str(raw.get("dtype") or raw.get("torch_dtype") or "float32")


def _plain(ours: Any, directory: Path) -> tuple[Any, dict[str, Any]]:
    """The model in the class that a user would load it with, and what Transformers says of the loading."""
    kind: Any = AutoModelForCausalLM
    if isinstance(ours, ValueModel):
        kind = AutoModelForSequenceClassification if ours.bias is None else AutoModelForTokenClassification
    model, loading = kind.from_pretrained(
        directory, dtype=torch.float32, trust_remote_code=False, use_safetensors=True, output_loading_info=True
    )
    return model.eval(), loading


def _same_tensors(ours: Any, theirs: Any, source: Path, destination: Path) -> int:
    """How many tensors Transformers holds; RunError where one is not the trainer's, bit for bit."""
    if isinstance(ours, ValueModel):
        state = read_hf_state(source)
    elif isinstance(ours, Decoder):
        state = to_hf_state({name: p.detach() for name, p in ours.state_dict().items()}, ours.config)
    else:
        state = ours.inner.state_dict()
    known, differing = set(), []
    held = theirs.state_dict()
    for name, tensor in sorted(held.items(), key=lambda item: item[0] not in state):
        mine = state.get(name)
        # A tied head is its embedding under another name.
        if mine is None and tensor.data_ptr() in known:
            continue
        known.add(tensor.data_ptr())
        if mine is None or not torch.equal(tensor, mine.to(tensor.dtype)):
            differing.append(name)
    if differing:
        raise RunError(
            f"{destination}: {', '.join(differing[:3])} ({len(differing)} of {len(held)} tensors) differ between "
            f"Transformers and the trainer of {source}: {REFUSED}"
        )
    return len(held)


def spread_tokens(vocabulary: int, length: int) -> Tensor:
    """Token ids [ROWS, length] spread evenly over the whole vocabulary, first and last included, in mixed order."""
    ids = torch.linspace(0, vocabulary - 1, ROWS * length, dtype=torch.float64).round().long()
    return ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))].view(ROWS, length)


def over(text: Tensor) -> str:
    return f", and agrees on {text.numel()} tokens spread over the vocabulary"


def _ours(model: Any, ids: Tensor) -> Tensor:
    segments = [Segment(1, len(ids))]
    output: Tensor = model(ids, positions(segments), packed_attention(segments))
    return output


def logprob_gap(ours: Any, theirs: Any, ids: Tensor) -> Tensor:
    """Over every token of the vocabulary at every place."""
    mine = torch.log_softmax(ours.logits(_ours(ours, ids)).float(), dim=-1)
    plain = torch.log_softmax(theirs(ids[None]).logits[0].float(), dim=-1)
    return (mine - plain).abs().max()


def allowed(gap: float, theirs: Any, text: Tensor) -> float:
    """The limit of a difference `gap` between two float32 computations of `text`; `theirs` is left in float64 where it
    had to be asked."""
    if gap < TOLERANCE:
        return TOLERANCE
    single = [theirs(ids[None]).logits[0] for ids in text]
    double = [theirs.double()(ids[None]).logits[0] for ids in text]
    if single[0].shape[-1] > 1:  # of a language model, not values
        single, double = ([torch.log_softmax(scores, dim=-1) for scores in side] for side in (single, double))
    rounding = max(float((a - b).abs().max()) for a, b in zip(single, double, strict=True))
    return max(TOLERANCE, ROUNDINGS * rounding)


def _value_gap(ours: Any, theirs: Any, ids: Tensor) -> Tensor:
    """Over every token, or where Transformers gives one value a sequence, over its beginnings of several lengths."""
    mine = _ours(ours, ids)
    if ours.bias is not None:
        return (mine - theirs(ids[None]).logits[0, :, 0]).abs().max()
    # A sequence's value is read at its last token that is no padding.
    ends = [n for n in range(1, len(ids) + 1, 7) if ids[n - 1] != theirs.config.pad_token_id]
    return torch.stack([(mine[n - 1] - theirs(ids[None, :n]).logits[0, 0]).abs() for n in ends]).max()
