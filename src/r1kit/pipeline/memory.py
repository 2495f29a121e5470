"""What a process holds in training and sampling, in bytes, from the shape of its model alone: the memory plan's sums.

Estimates, meant to be a little above what is measured (docs/memory.md compares): an array is counted while a step needs
it, what an optimiser step needs for a moment is not, because the activations of the step are gone by then.
"""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass
from pathlib import Path

from r1kit.config.parts import ModelSettings

# Entries of the tiny tokenizer, rounded up; it is not imported here because that takes seconds.
TINY_VOCABULARY = 256
# Interpreter, torch, Transformers, the task's tables and responses as Python objects.
PROCESS_BYTES = 600 << 20
# As in models/attention.py, algorithms/entropy.py and engines/invariance.py, which import torch.
SCORED_LENGTH, KEPT_PROBABILITIES, CHUNK_ELEMENTS, CHUNK_ROWS, PREPARED = 512, 1 << 24, 1 << 18, 256, 20_000_000


@dataclass(frozen=True)
class Memory:
    """Bytes of one process, by what they hold. `beside`: reference, critic, process reward model and judges."""

    process: int = 0
    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    logits: int = 0
    cache: int = 0
    beside: int = 0

    def __add__(self, other: Memory) -> Memory:
        return Memory(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    @property
    def total(self) -> int:
        return sum(astuple(self))


@dataclass(frozen=True)
class Computing:
    """How a stage computes; `native`: compiled, and the type of its products."""

    bf16: bool = False
    cuda: bool = False
    native: str = "off"

    @property
    def size(self) -> int:
        """Bytes of a weight as the model holds it."""
        return 2 if self.bf16 else 4

    @property
    def product_size(self) -> int:
        """Bytes of a factor of a matrix product."""
        return 2 if self.bf16 or self.native == "bfloat16" else 4


@dataclass(frozen=True)
class Shape:
    """What a model's size depends on."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    tied: bool

    @classmethod
    def of_settings(cls, model: ModelSettings) -> Shape:
        return cls(
            TINY_VOCABULARY,
            model.hidden,
            model.layers,
            model.heads,
            model.kv_heads,
            model.head_dim,
            model.intermediate,
            model.tie_embeddings,
        )

    @classmethod
    def of_directory(cls, path: Path) -> Shape | None:
        """Read from a Hugging Face config.json; None where there is none, or where it names its sizes otherwise."""
        file = path / "config.json"
        if not file.is_file():
            return None
        try:
            raw = json.loads(file.read_text(encoding="utf-8"))
            heads = raw["num_attention_heads"]
            return cls(
                raw["vocab_size"],
                raw["hidden_size"],
                raw["num_hidden_layers"],
                heads,
                raw.get("num_key_value_heads") or heads,
                raw.get("head_dim") or raw["hidden_size"] // heads,
                raw["intermediate_size"],
                bool(raw.get("tie_word_embeddings", False)),
            )
        except (ValueError, KeyError, TypeError):
            return None  # a damaged file is named where the model's lengths are looked at

    @property
    def head(self) -> int:
        """Parameters of the output matrix."""
        return self.vocabulary * self.hidden

    @property
    def matrices(self) -> int:
        """Parameters of the matrices inside the layers."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def matmul_parameters(self) -> int:
        """Parameters that every token multiplies with, the head included."""
        return self.matrices + self.head

    @property
    def parameters(self) -> int:
        return self.matmul_parameters + (0 if self.tied else self.head)

    def adapter_parameters(self, rank: int) -> int:
        """Both factors of each matrix of the layers: query, key and value in one; output; gate and up in one; down."""
        queries, keys = self.head_dim * self.heads, self.head_dim * self.kv_heads
        sides = 4 * self.hidden + (queries + 2 * keys) + queries + 3 * self.intermediate
        return self.layers * rank * sides

    def activation_width(self, length: int, how: Computing) -> int:
        """Numbers a token leaves in a layer for the backward pass, in sequences of `length` tokens.

        Both normed inputs, what attention reads and gives, and what lies inside SwiGLU. PyTorch on a CPU keeps short
        sequences' attention weights too; the compiled pass makes those, and SwiGLU's product, again.
        """
        heads = self.head_dim * (self.heads + self.kv_heads)
        if how.native != "off":
            return 2 * self.hidden + 2 * heads + 2 * self.intermediate
        scores = 0 if how.cuda else self.heads * min(length, SCORED_LENGTH)
        return 2 * self.hidden + 4 * heads + 4 * self.intermediate + scores


def trained(shape: Shape, how: Computing, *, rank: int | None = None) -> Memory:
    """Weights, gradient and optimiser; with adapters of `rank` theirs, beside the model, and its matrices as they were
    and as a forward pass sums them."""
    if rank is not None:
        adapters = shape.adapter_parameters(rank)
        weights = (shape.parameters + 2 * shape.matrices) * how.size
        return Memory(weights=weights + adapters * 4, gradients=adapters * _gradient(how), optimizer=adapters * 8)
    # Compiled, each matrix is packed twice, for the pass forward and the one back.
    copies = shape.parameters * (2 if how.bf16 else 0) + _packed(shape, how, 2)
    return Memory(
        weights=shape.parameters * 4 + copies,
        gradients=shape.parameters * _gradient(how),
        optimizer=shape.parameters * 8,
    )


def _gradient(how: Computing) -> int:
    """Bytes of a gradient: a bfloat16 one is turned to float32 for the step."""
    return 6 if how.bf16 else 4


def _packed(shape: Shape, how: Computing, times: int) -> int:
    return shape.matmul_parameters * times * how.product_size if how.native != "off" else 0


def passes(
    shape: Shape, how: Computing, tokens: int, length: int, *, recompute: bool = False, head_trained: bool = True
) -> Memory:
    """Activations and logits of a micro-batch of `tokens` in sequences of `length`, where all tokens are learned.

    With `recompute`: the inputs of all layers, and what one of them holds, made and made again. Logits exist a chunk at
    a time, and, where they are few, their probabilities are kept.
    """
    length = min(length, tokens)
    width, size = shape.activation_width(length, how), how.product_size
    head = shape.head * 4 if head_trained else 0  # its gradient in float32, before it is added
    if how.native != "off":
        kept = (tokens + 32) * shape.layers * width * size + tokens * 2 * shape.hidden * 4
        # A chunk of rows of one layer, attention of one head, and the gradients of one layer's weights.
        chunk = (544 + length) * (width + shape.hidden) * size
        room = chunk + length * (length + 256) * size + 4 * shape.matrices // max(shape.layers, 1)
        return Memory(activations=(kept + room) * 5 // 4, logits=head)  # buffers are made with room to grow
    held = shape.layers * shape.hidden + 2 * width if recompute else shape.layers * width
    # One layer's gradients on top, in float32 on their way; hidden states and their gradient at the head.
    activations = tokens * ((held + 3 * shape.hidden) * size + width * 4)
    chunks = 2 * max(CHUNK_ROWS, CHUNK_ELEMENTS // shape.vocabulary) * shape.vocabulary
    probabilities = tokens * shape.vocabulary if tokens * shape.vocabulary <= KEPT_PROBABILITIES else 0
    return Memory(activations=activations, logits=(chunks + probabilities) * 4 + head)


def cached(shape: Shape, how: Computing, rows: int, length: int) -> Memory:
    """Keys and values of `rows` responses of `length` tokens."""
    return Memory(cache=rows * length * shape.layers * 2 * shape.kv_heads * shape.head_dim * how.product_size)


def laid_out(shape: Shape, how: Computing) -> int:
    """The second copy of the weights that a small float32 model on a CPU is sampled from, and its compiled form."""
    small = not how.cuda and not how.bf16 and shape.parameters <= PREPARED
    return (shape.matmul_parameters * 4 if small else 0) + _packed(shape, how, 1)


def sampled(shape: Shape, how: Computing, rows: int, length: int) -> Memory:
    """A model that only samples."""
    return Memory(weights=shape.parameters * how.size + laid_out(shape, how)) + cached(shape, how, rows, length)
