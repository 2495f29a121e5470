"""Sampling a fixed queue of requests: the local engine of r1kit, and `generate` of Transformers.

Both get the same prompts as token ids, sample from the whole distribution at temperature 1 and stop at <eos>
or at the cap. What they return is counted after the clock has stopped. Each process takes every size-th
request of the queue.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from harness.workload import natural_tokens, queue, read_recipe
from r1kit.engines.local import LocalEngine
from r1kit.engines.protocol import Request, SamplingParams
from r1kit.models.chat import encode_prompt, stop_token_ids
from r1kit.models.loading import load_model, load_tokenizer
from r1kit.tasks import make_task


class _Queue:
    """This process's share. Options "checkpoint", "recipe"; order "requests", "max_tokens", "seed"."""

    def __init__(self, options: dict[str, Any], rank: int, size: int) -> None:
        self.options, self.rank, self.size = options, rank, size
        self.tokenizer = load_tokenizer(options["checkpoint"])
        self.stops = stop_token_ids(self.tokenizer)
        self.problems = make_task(read_recipe(options["recipe"]).task).problems("test")

    def requests(self, order: dict[str, Any]) -> list[Request]:
        params = SamplingParams(max_tokens=order["max_tokens"], stop_token_ids=self.stops, seed=order["seed"])
        share = queue(self.problems, order["requests"])[self.rank :: self.size]
        return [
            Request(
                f"{problem.id}/{sample}",
                tuple(encode_prompt(self.tokenizer, problem)),
                params,
                problem.id,
                sample,
            )
            for problem, sample in share
        ]


class OurEngine(_Queue):
    """The local engine; order "slots", "deterministic", "native"."""

    def __init__(self, options: dict[str, Any], rank: int, size: int) -> None:
        super().__init__(options, rank, size)
        self.model = load_model(options["checkpoint"], dtype=options["dtype"])
        self.engines: dict[tuple[int, bool, str], LocalEngine] = {}

    def prepare(self, order: dict[str, Any]) -> None:
        key = (order["slots"], order["deterministic"], order["native"])
        if key not in self.engines:
            slots, deterministic, native = key
            self.engines[key] = LocalEngine(
                self.model, self.tokenizer, slots=slots, deterministic=deterministic, native=native
            )
        self.engine, self.share = self.engines[key], self.requests(order)

    def run(self) -> dict[str, Any]:
        before = asdict(self.engine.statistics)
        samples = self.engine.generate(self.share)
        after = asdict(self.engine.statistics)
        spent = {name: after[name] - before[name] for name in after}
        phases = {
            "prefill": spent["prefill_seconds"],
            "attention": spent["attention_seconds"],
            "rest of the model": spent["decode_seconds"] - spent["attention_seconds"],
            "sampling": spent["sample_seconds"],
            "scheduling": spent["schedule_seconds"],
        }
        return {
            "tokens": natural_tokens([s.token_ids for s in samples], self.stops),
            "rows": spent["row_steps"],
            "requests": len(samples),
            "truncated": sum(s.finish == "length" for s in samples),
            "phases": phases,
        }


class TransformersGenerate(_Queue):
    """`AutoModelForCausalLM.generate` over batches in queue order; order "dtype", "batch"."""

    def __init__(self, options: dict[str, Any], rank: int, size: int) -> None:
        super().__init__(options, rank, size)
        self.models: dict[str, Any] = {}

    def prepare(self, order: dict[str, Any]) -> None:
        from transformers import AutoModelForCausalLM, GenerationConfig

        dtype = order["dtype"]
        if dtype not in self.models:
            model = AutoModelForCausalLM.from_pretrained(self.options["checkpoint"], dtype=dtype)
            self.models[dtype] = model.eval()
        self.model = self.models[dtype]
        share = [r.prompt_ids for r in self.requests(order)]
        self.batches = [self._batch(share[i : i + order["batch"]]) for i in range(0, len(share), order["batch"])]
        self.config = GenerationConfig(
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=order["max_tokens"],
            eos_token_id=list(self.stops),
            pad_token_id=self.tokenizer.pad_token_id,
        )
        torch.manual_seed(order["seed"] * self.size + self.rank)

    def _batch(self, prompts: list[tuple[int, ...]]) -> dict[str, torch.Tensor]:
        """Prompts padded on the left, as `generate` wants them."""
        width = max(map(len, prompts))
        ids = [[self.tokenizer.pad_token_id] * (width - len(p)) + list(p) for p in prompts]
        mask = [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}

    def run(self) -> dict[str, Any]:
        with torch.inference_mode():
            outputs = [self.model.generate(**batch, generation_config=self.config) for batch in self.batches]
        responses = [
            row
            for batch, output in zip(self.batches, outputs, strict=True)
            for row in output[:, batch["input_ids"].shape[1] :].tolist()
        ]
        return {
            "tokens": natural_tokens(responses, self.stops),
            "rows": sum(
                o.shape[0] * (o.shape[1] - b["input_ids"].shape[1]) for b, o in zip(self.batches, outputs, strict=True)
            ),
            "requests": len(responses),
            "truncated": sum(not set(self.stops) & set(row) for row in responses),
        }
