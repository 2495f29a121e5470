"""Hugging Face checkpoints in and out: what r1kit writes, plain Transformers loads, and the other way round."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from r1kit.models.decoder import Decoder, DecoderConfig

if TYPE_CHECKING:
    from transformers import PretrainedConfig

NATIVE_FAMILIES = ("qwen2", "qwen3", "llama")
NATIVE_ROPE_TYPES = ("default", "linear", "yarn", "llama3")
INDEX = "model.safetensors.index.json"


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read or written; the message names the file and what to do."""


def read_config(directory: str | Path, name: str = "config.json") -> dict[str, Any]:
    """config.json of a checkpoint directory, or another of its files; CheckpointError where it holds no JSON object."""
    path = Path(directory) / name
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected a Hugging Face checkpoint directory with {name}")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no text
        raise CheckpointError(f"{path}: not valid JSON ({error}); the file is damaged, take another copy") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path}: holds no object ({{...}}) but {str(raw)[:40]!r}; take another copy")
    return raw


def unsupported_reason(raw: Mapping[str, Any]) -> str | None:
    """Why the native decoder cannot run this config.json, or None where it can."""
    family = raw.get("model_type")
    if family not in NATIVE_FAMILIES:
        return f"model_type {family!r} is not one of {NATIVE_FAMILIES}"
    if raw.get("use_sliding_window"):
        return "use_sliding_window is on"
    if raw.get("hidden_act", "silu") != "silu":
        return f"hidden_act is {raw['hidden_act']!r}, not 'silu'"
    if raw.get("mlp_bias"):
        return "mlp_bias is on"
    if family in ("llama", "qwen3") and raw.get("attention_bias"):
        return "attention_bias adds a bias on the output projection"
    rope_type = _rope_parameters(raw)["rope_type"]
    if rope_type not in NATIVE_ROPE_TYPES:
        # "dynamic" and "longrope" change with the length of the input: no fixed table of angles holds them.
        return f"rope_type {rope_type!r} is not one of {NATIVE_ROPE_TYPES}"
    return None


def from_hf_config(raw: Mapping[str, Any], file: str | Path = "config.json") -> DecoderConfig:
    """DecoderConfig of a config.json, which errors call `file`.

    CheckpointError where the native decoder does not apply, or where a size is missing or is none.
    """
    reason = unsupported_reason(raw)
    if reason:
        raise CheckpointError(f"{file}: {reason}; load it with r1kit.models.load_model, which uses Transformers")
    for name in _SIZES:
        if name not in raw:
            raise CheckpointError(f"{file} has no {name!r}; the file is damaged, take another copy")
        if not isinstance(raw[name], int) or raw[name] < 1:
            raise CheckpointError(f"{file}: {name} is {raw[name]!r}, expected a whole number; take another copy")
    rope = _rope_parameters(raw)
    heads = raw["num_attention_heads"]
    return DecoderConfig(
        vocab_size=raw["vocab_size"],
        hidden_size=raw["hidden_size"],
        num_layers=raw["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=raw.get("num_key_value_heads") or heads,
        head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
        intermediate_size=raw["intermediate_size"],
        model_type=raw["model_type"],
        rms_norm_eps=raw.get("rms_norm_eps", 1e-6),
        rope_theta=float(rope.get("rope_theta", 10_000.0)),
        rope_parameters=rope,
        tie_embeddings=bool(raw.get("tie_word_embeddings", False)),
        qkv_bias=raw["model_type"] == "qwen2",
        qk_norm=raw["model_type"] == "qwen3",
        max_positions=raw.get("max_position_embeddings", 4096),
        bos_token_id=raw.get("bos_token_id"),
        eos_token_id=raw.get("eos_token_id"),
        pad_token_id=raw.get("pad_token_id"),
    )


_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


def _rope_parameters(raw: Mapping[str, Any]) -> dict[str, Any]:
    """RoPE settings in the spelling of Transformers 5, read from either spelling."""
    rope = dict(raw.get("rope_parameters") or raw.get("rope_scaling") or {})
    rope["rope_type"] = rope.pop("type", None) or rope.get("rope_type", "default")
    rope.setdefault("rope_theta", raw.get("rope_theta", 10_000.0))
    return rope


def to_hf_config(config: DecoderConfig) -> PretrainedConfig:
    """The Transformers configuration a checkpoint is saved with."""
    from transformers import AutoConfig

    rope = {"rope_type": "default", "rope_theta": config.rope_theta, **config.rope_parameters}
    return AutoConfig.for_model(
        config.model_type,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        intermediate_size=config.intermediate_size,
        rms_norm_eps=config.rms_norm_eps,
        rope_parameters=rope,
        tie_word_embeddings=config.tie_embeddings,
        max_position_embeddings=config.max_positions,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        architectures=[_ARCHITECTURES[config.model_type]],
        dtype="float32",
    )


_ARCHITECTURES = {"qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}


def _interleaved(config: DecoderConfig) -> Tensor:
    """Index that turns Hugging Face's half-split rotary order into ours, within one head: 0, K/2, 1, K/2 + 1, ..."""
    half = config.head_dim // 2
    return torch.stack([torch.arange(half), torch.arange(half) + half], dim=1).flatten()


def _reorder_heads(x: Tensor, config: DecoderConfig, *, to_hf: bool) -> Tensor:
    """Permute the rows of every head of a query or key array whose first axis is heads * head_dim."""
    order = _interleaved(config)
    if to_hf:
        order = torch.argsort(order)
    return x.unflatten(0, (-1, config.head_dim))[:, order].flatten(0, 1)


def from_hf_state(
    hf: Mapping[str, Tensor], config: DecoderConfig, where: str | Path = "the checkpoint"
) -> dict[str, Tensor]:
    """Our parameters from Hugging Face's, by name; CheckpointError says what `where` lacks."""

    def take(name: str) -> Tensor:
        if name not in hf:
            raise CheckpointError(f"{where} has no tensor {name!r}, which its config.json asks for; take another copy")
        return hf[name]

    state = {"embedding": take("model.embed_tokens.weight"), "final_norm": take("model.norm.weight")}
    if not config.tie_embeddings:
        state["head"] = take("lm_head.weight")
    for i in range(config.num_layers):
        theirs, ours = f"model.layers.{i}.", f"layers.{i}."
        kinds = ("weight", "bias") if config.qkv_bias else ("weight",)
        for kind in kinds:
            q, k, v = (take(f"{theirs}self_attn.{n}_proj.{kind}") for n in "qkv")
            rotated = [_reorder_heads(x, config, to_hf=False) for x in (q, k)]
            state[ours + ("qkv" if kind == "weight" else "qkv_bias")] = torch.cat([*rotated, v])
        if config.qk_norm:
            for n in "qk":
                state[f"{ours}{n}_norm"] = take(f"{theirs}self_attn.{n}_norm.weight")[_interleaved(config)]
        state[ours + "output"] = take(theirs + "self_attn.o_proj.weight")
        state[ours + "gate_up"] = torch.cat([take(f"{theirs}mlp.{n}_proj.weight") for n in ("gate", "up")])
        state[ours + "down"] = take(theirs + "mlp.down_proj.weight")
        state[ours + "attention_norm"] = take(theirs + "input_layernorm.weight")
        state[ours + "mlp_norm"] = take(theirs + "post_attention_layernorm.weight")
    return state


def to_hf_state(state: Mapping[str, Tensor], config: DecoderConfig) -> dict[str, Tensor]:
    """The exact inverse of `from_hf_state`; works for gradients as well as for weights."""
    hf = {"model.embed_tokens.weight": state["embedding"], "model.norm.weight": state["final_norm"]}
    if not config.tie_embeddings:
        hf["lm_head.weight"] = state["head"]
    widths = [config.query_width, config.kv_width, config.kv_width]
    for i in range(config.num_layers):
        theirs, ours = f"model.layers.{i}.", f"layers.{i}."
        for kind, name in (("weight", "qkv"), ("bias", "qkv_bias")):
            if ours + name not in state:
                continue
            q, k, v = state[ours + name].split(widths)
            hf[f"{theirs}self_attn.q_proj.{kind}"] = _reorder_heads(q, config, to_hf=True)
            hf[f"{theirs}self_attn.k_proj.{kind}"] = _reorder_heads(k, config, to_hf=True)
            hf[f"{theirs}self_attn.v_proj.{kind}"] = v
        if config.qk_norm:
            for n in "qk":
                hf[f"{theirs}self_attn.{n}_norm.weight"] = _reorder_heads(state[f"{ours}{n}_norm"], config, to_hf=True)
        hf[theirs + "self_attn.o_proj.weight"] = state[ours + "output"]
        gate, up = state[ours + "gate_up"].chunk(2)
        hf[theirs + "mlp.gate_proj.weight"], hf[theirs + "mlp.up_proj.weight"] = gate, up
        hf[theirs + "mlp.down_proj.weight"] = state[ours + "down"]
        hf[theirs + "input_layernorm.weight"] = state[ours + "attention_norm"]
        hf[theirs + "post_attention_layernorm.weight"] = state[ours + "mlp_norm"]
    return {name: tensor.contiguous() for name, tensor in hf.items()}


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of one file; a damaged or truncated file is named."""
    with _opened(path) as handle:
        return {name: _tensor(handle, name, path) for name in handle.keys()}  # noqa: SIM118 - not a dict


def weight_files(directory: str | Path) -> list[Path]:
    """The files that hold the weights of a checkpoint directory: those that its index names, or the one without."""
    directory = Path(directory)
    if not (directory / INDEX).is_file():
        return [directory / "model.safetensors"]
    placed = read_config(directory, INDEX).get("weight_map")
    if not isinstance(placed, dict) or not placed or not all(isinstance(file, str) for file in placed.values()):
        raise CheckpointError(
            f"{directory / INDEX}: has no 'weight_map' that says which file holds a tensor; the file is damaged, take "
            "another copy"
        )
    return [directory / file for file in sorted(set(placed.values()))]


def read_hf_state(directory: str | Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint directory, sharded or not; safetensors only (pickled weights run code)."""
    state: dict[str, Tensor] = {}
    for file in weight_files(directory):
        state.update(read_safetensors(file))
    return state


class Source:
    """The tensors of a checkpoint directory by name, read one at a time.

    To enter it opens every file: CheckpointError names one that is missing, damaged or truncated.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory, self.stack = Path(directory), ExitStack()
        self.files: dict[str, Any] = {}

    def __enter__(self) -> Source:
        for path in weight_files(self.directory):
            handle = self.stack.enter_context(_opened(path))
            self.files |= dict.fromkeys(handle.keys(), handle)
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.files[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """As safetensors spells it, such as BF16."""
        return str(self.files[name].get_slice(name).get_dtype())

    def tensor(self, name: str) -> Tensor:
        return _tensor(self.files[name], name, self.directory)


def _opened(path: Path) -> Any:
    """A safetensors file, whose header and length are looked at here."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; the checkpoint is incomplete (safetensors only)")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}); the file is damaged or truncated, use an earlier checkpoint"
        ) from error


def _tensor(handle: Any, name: str, where: Path) -> Tensor:
    try:
        tensor: Tensor = handle.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{where}: {name} cannot be read ({error}); the file is damaged") from error
    return tensor


def load_decoder(
    directory: str | Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Decoder:
    """The native decoder with the weights of a Hugging Face checkpoint directory."""
    config = from_hf_config(read_config(directory), Path(directory) / "config.json")
    hf = read_hf_state(directory)
    model = Decoder(config).to(device=device, dtype=dtype)
    fill_decoder(model, hf, directory)
    return model


def fill_decoder(model: Decoder, hf: Mapping[str, Tensor], directory: str | Path) -> None:
    """Put Hugging Face's tensors into `model`; CheckpointError where those of `directory` do not fit its config.json.

    Some writers leave a tied head out, some write it twice; the config decides.
    """
    try:
        state = from_hf_state(hf, model.config, directory)
    except CheckpointError:
        raise
    except (RuntimeError, IndexError) as error:  # heads that do not divide the rows of a matrix
        raise CheckpointError(f"{directory}: config.json and weights disagree: {error}") from error
    wrong = [
        f"{name}: {tuple(state[name].shape)} instead of {tuple(parameter.shape)}"
        for name, parameter in model.state_dict().items()
        if state[name].shape != parameter.shape
    ]
    if wrong:
        raise CheckpointError(f"{directory}: config.json and weights disagree: {'; '.join(wrong)}")
    model.load_state_dict(state)


def write_decoder(model: Decoder, directory: str | Path) -> None:
    """model.safetensors and config.json in the Hugging Face layout; the caller makes the directory durable."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    state = {name: p.detach().to("cpu") for name, p in model.state_dict().items()}
    save_file(to_hf_state(state, model.config), directory / "model.safetensors", metadata={"format": "pt"})
    config = to_hf_config(model.config)
    config.dtype = str(model.embedding.dtype).removeprefix("torch.")
    config.save_pretrained(directory)


def weights_checksum(model: torch.nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of all parameters, in name order."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
