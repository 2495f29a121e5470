"""A whole supervised stage: data to checkpoint, a resume that changes nothing, the epoch that is chosen.

Why this matters: fine-tuning is where most people's data meet the trainer. Rows that vanish, an epoch chosen by another
number than the recipe says, or a resumed run that differs are found weeks later, if at all.

Not exercised here: reading of every data form (tests/tasks/test_traces.py); losses against TRL (test_sft_parity.py);
how well a model learns (tests/test_learning.py).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from r1kit.config.errors import UserError
from r1kit.config.supervised import SFTSettings
from r1kit.models.checkpoint import CheckpointError, read_config, read_safetensors
from r1kit.models.loading import load_tokenizer, write_model
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.training import checkpoints
from r1kit.training.parallel import World
from r1kit.training.recorder import Interrupted, StageOutcome
from r1kit.training.supervised import SFTRun, train_sft

from .helpers import tiny_model
from .stage import TASK, ListRecorder, write_untrained

ROWS = [
    {"prompt": f"Q:{a}+{b}", "completion": f"<think>\n{a}\n</think>\n\n{a + b}"} for a in range(4) for b in range(5)
]


class NotingRecorder(ListRecorder):
    def named(self, name: str) -> list[float]:
        return [row[name] for row in self.rows if name in row]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]] = ROWS) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tokenizer = build_tiny_tokenizer()
    write_model(tiny_model(vocab_size=len(tokenizer)), tokenizer, tmp_path / "base")
    return tmp_path / "base"


def settings(data: Path | list[Any], **changes: Any) -> SFTSettings:
    values = {
        "model": "base",
        "data": [{"path": str(data)}] if isinstance(data, Path) else data,
        "epochs": 2,
        "batch_size": 6,
        "max_tokens": 60,
        "token_budget": 90,
        "log_every": 1,
        "checkpoint_every": 3,
        "optimizer": {"lr": 1e-2},
    }
    return SFTSettings.model_validate({**values, **changes})


def run(stage: SFTSettings, base: Path, directory: Path, recorder: NotingRecorder | None = None) -> StageOutcome:
    return train_sft(
        stage,
        stage="sft",
        model_path=base,
        data_paths={},
        task=TASK,
        seed=5,
        world=World.single(),
        recorder=recorder or NotingRecorder(),
        directory=directory,
        dtype="float32",
    )


def weights(outcome: StageOutcome) -> dict[str, torch.Tensor]:
    assert outcome.model is not None
    return read_safetensors(outcome.model / "model.safetensors")


def test_a_stage_learns_its_data(base: Path, tmp_path: Path) -> None:
    recorder = NotingRecorder()
    stage = settings(write_rows(tmp_path / "rows.jsonl"), epochs=15, held_out_share=0.1)
    outcome = run(stage, base, tmp_path / "run", recorder)
    losses, accuracy = recorder.named("loss"), recorder.named("token_accuracy")
    assert losses[-1] < 0.5 * losses[0]
    assert accuracy[-1] > accuracy[0]
    assert len(recorder.named("held_out_loss")) == 15
    assert outcome.metrics["steps"] == len(losses)
    assert outcome.metrics["conversations"] == 20
    assert recorder.notes[0].startswith("20 conversations")


@pytest.mark.parametrize("stop_after", [1, 4, 5])
def test_a_resumed_stage_is_bit_for_bit_the_same(stop_after: int, base: Path, tmp_path: Path) -> None:
    stage = settings(
        write_rows(tmp_path / "rows.jsonl"),
        epochs=3,
        held_out_share=0.2,
        select="loss",
        neftune_alpha=5.0,
        warmup_share=0.2,
        evaluate={"every": 2, "problems": 2, "samples": 1, "max_tokens": 4},
    )
    whole, resumed = NotingRecorder(), NotingRecorder(stop_after)
    want = run(stage, base, tmp_path / "whole", whole)
    # Killed: the process is gone at once, what it saved remains. The rows it wrote after that are done again.
    with patch.object(SFTRun, "advance", _killed_after(stop_after)), pytest.raises(KeyboardInterrupt):
        run(stage, base, tmp_path / "killed", resumed)
    resumed.stop_after = None
    got = run(stage, base, tmp_path / "killed", resumed)
    assert resumed.rows == whole.rows
    assert got.metrics == want.metrics
    assert got.tokens == want.tokens
    assert all(torch.equal(a, b) for a, b in zip(weights(got).values(), weights(want).values(), strict=True))


def test_adapters_are_trained_alone_and_go_on_where_they_stopped(base: Path, tmp_path: Path) -> None:
    stage = settings(write_rows(tmp_path / "rows.jsonl"), epochs=3, lora={"rank": 4, "alpha": 8})
    want = run(stage, base, tmp_path / "whole")
    before, after = read_safetensors(base / "model.safetensors"), weights(want)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("layers." in name and "norm" not in name for name in changed)
    with patch.object(SFTRun, "advance", _killed_after(7)), pytest.raises(KeyboardInterrupt):
        run(stage, base, tmp_path / "killed")
    got = weights(run(stage, base, tmp_path / "killed"))
    assert all(torch.equal(got[name], tensor) for name, tensor in after.items())


def test_adapters_cannot_learn_new_tokens(base: Path, tmp_path: Path) -> None:
    stage = settings(write_rows(tmp_path / "rows.jsonl"), lora={}, chat_template="chatml")
    with pytest.raises(UserError, match=r"<\|im_start\|> <\|im_end\|> would be new tokens, and lora never trains"):
        run(stage, base, tmp_path / "run")


def test_the_compiled_pass_trains_the_same_and_says_where_it_cannot(base: Path, tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("no g++: the compiled pass cannot be built")
    plain, compiled, noisy = NotingRecorder(), NotingRecorder(), NotingRecorder()
    path = write_rows(tmp_path / "rows.jsonl")
    run(settings(path), base, tmp_path / "a", plain)
    run(settings(path, native="float32"), base, tmp_path / "b", compiled)
    assert compiled.named("loss") == pytest.approx(plain.named("loss"), rel=1e-4)
    run(settings(path, native="float32", neftune_alpha=1.0), base, tmp_path / "c", noisy)
    assert "native is off in this stage: neftune_alpha need PyTorch's own pass" in noisy.notes


def _killed_after(step: int) -> Any:
    advance = SFTRun.advance

    def dying(self: SFTRun) -> None:
        if self.step == step:
            raise KeyboardInterrupt
        advance(self)

    return dying


def test_a_stage_that_was_asked_to_stop_says_how_to_go_on(base: Path, tmp_path: Path) -> None:
    stage = settings(write_rows(tmp_path / "rows.jsonl"), epochs=4)
    with pytest.raises(Interrupted, match="stopped after step 10 of 16"):
        run(stage, base, tmp_path / "run", NotingRecorder(stop_after=10))
    assert checkpoints.latest_checkpoint(tmp_path / "run") == tmp_path / "run" / "step-000010"


def test_the_best_epoch_is_handed_on_and_kept(base: Path, tmp_path: Path) -> None:
    """The held-out loss is made to rise after the second of four epochs."""
    recorder, losses = NotingRecorder(), iter([3.0, 1.0, 2.0, 2.5])
    stage = settings(
        write_rows(tmp_path / "rows.jsonl"), epochs=4, held_out_share=0.2, select="loss", keep_checkpoints=1
    )
    with patch("r1kit.training.supervised.evaluate_tokens", lambda *_: (next(losses), 0.5)):
        outcome = run(stage, base, tmp_path / "run", recorder)
    steps = outcome.metrics["steps"] / 4
    assert outcome.model == tmp_path / "run" / f"step-{int(2 * steps):06d}"
    checkpoints.verify_checkpoint(outcome.model)
    assert outcome.metrics["selected_step"] == 2 * steps


def test_patience_ends_a_stage_that_gets_no_better(base: Path, tmp_path: Path) -> None:
    recorder, losses = NotingRecorder(), iter([2.0, 3.0, 3.0, 1.0])
    stage = settings(write_rows(tmp_path / "rows.jsonl"), epochs=4, held_out_share=0.2, select="loss", patience=2)
    with patch("r1kit.training.supervised.evaluate_tokens", lambda *_: (next(losses), 0.5)):
        outcome = run(stage, base, tmp_path / "run", recorder)
    assert outcome.metrics["steps"] == 3 * outcome.metrics["selected_step"]
    assert recorder.notes[-1] == "stopped after epoch 3: none was better than epoch 1"
    # Finished: run again, it goes no further.
    again = run(stage, base, tmp_path / "run", recorder)
    assert again.metrics["steps"] == outcome.metrics["steps"]


def test_pass_at_1_chooses_too(base: Path, tmp_path: Path) -> None:
    recorder = NotingRecorder()
    stage = settings(
        write_rows(tmp_path / "rows.jsonl"),
        select="pass@1",
        evaluate={"problems": 3, "samples": 1, "max_tokens": 4},
    )
    outcome = run(stage, base, tmp_path / "run", recorder)
    assert len(recorder.named("pass@1")) == 2
    # Neither epoch solves anything: the earlier is taken.
    assert outcome.metrics["selected_step"] == outcome.metrics["steps"] / 2
    assert outcome.tokens["sampled"] > 0


def test_rows_that_are_left_out_are_counted_and_told(base: Path, tmp_path: Path) -> None:
    long = {"prompt": "Q", "completion": "1 " * 80}
    path = write_rows(tmp_path / "rows.jsonl", [*ROWS[:6], long, {"prompt": "Q", "completion": ""}])
    data = [{"path": str(path), "bad_rows": "skip"}]
    recorder = NotingRecorder()
    dropped = run(settings(data), base, tmp_path / "a", recorder)
    assert (dropped.metrics["dropped"], dropped.metrics["cut"], dropped.metrics["skipped"]) == (1, 0, 1)
    assert any("1 bad rows skipped, such as" in note and "rows.jsonl:8" in note for note in recorder.notes)
    assert any("1 sequences longer than max_tokens left out" in note for note in recorder.notes)
    recorder = NotingRecorder()
    cut = run(settings(data, too_long="cut"), base, tmp_path / "b", recorder)
    assert (cut.metrics["dropped"], cut.metrics["cut"], cut.metrics["sequences"]) == (0, 1, 7)
    assert any("1 sequences cut to max_tokens, 105 tokens lost" in note for note in recorder.notes)


def test_a_prompt_longer_than_the_cap_leaves_nothing_to_cut(base: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [{"prompt": "1 " * 80, "completion": "2"}])
    with pytest.raises(UserError, match="no sequence is left to train on: 1 are longer than max_tokens 60"):
        run(settings(path, too_long="cut"), base, tmp_path / "run")


def test_data_sets_in_turn_are_a_curriculum(base: Path, tmp_path: Path) -> None:
    first = write_rows(tmp_path / "first.jsonl", ROWS[:6])
    second = write_rows(tmp_path / "second.jsonl", ROWS[6:12])
    data = [{"path": str(first), "epochs": 1}, {"path": str(second), "epochs": 2}]
    seen: list[set[int]] = []

    def noting(state: Any, batch: Any, *_: Any, **__: Any) -> Any:
        seen.append({s.key for s in batch})
        return real(state, batch, *_, **__)

    from r1kit.training.supervised import token_step as real

    with patch("r1kit.training.supervised.token_step", noting):
        run(settings(data, order="in_turn"), base, tmp_path / "run")
    assert seen == [set(range(6)), set(range(6, 12)), set(range(6, 12))]


def test_weights_of_thought_and_answer(base: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl")
    learned = {}
    for name, (thought, answer) in {"both": (1, 1), "answer": (0, 1), "thought": (1, 0)}.items():
        stage = settings(path, thought_weight=thought, answer_weight=answer)
        opened = SFTRun(stage, "sft", base, {}, TASK, 5, World.single(), NotingRecorder(), tmp_path / name, "float32")
        learned[name] = opened.data.counts["learned"]
    assert learned["both"] == learned["answer"] + learned["thought"]
    # An answer is two line breaks, a number of one token, and <eos>.
    assert learned["answer"] == 4 * len(ROWS)


def test_the_end_of_a_turn_and_new_tokens_are_told_and_saved(base: Path, tmp_path: Path) -> None:
    recorder = NotingRecorder()
    stage = settings(write_rows(tmp_path / "rows.jsonl"), chat_template="chatml", add_tokens=("<tool>",))
    outcome = run(stage, base, tmp_path / "run", recorder)
    assert outcome.model is not None
    tokenizer = load_tokenizer(outcome.model)
    assert tokenizer.eos_token == "<|im_end|>"
    assert read_config(outcome.model)["eos_token_id"] == tokenizer.eos_token_id
    assert any("responses end with <|im_end|>" in note and "was <eos>" in note for note in recorder.notes)
    assert any("new tokens, at the mean of the others: <|im_start|> <|im_end|> <tool>" in n for n in recorder.notes)
    # The next stage goes on from it without adding anything again.
    again = NotingRecorder()
    run(stage.model_copy(update={"chat_template": None}), outcome.model, tmp_path / "next", again)
    assert not any("new tokens" in note or "responses end" in note for note in again.notes)


def test_tokens_without_training_are_warned_of(base: Path, tmp_path: Path) -> None:
    recorder = NotingRecorder()
    raw = write_untrained(tmp_path / "raw", "<eos>")
    run(settings(write_rows(tmp_path / "rows.jsonl")), raw, tmp_path / "run", recorder)
    assert any("warning: the embeddings of <eos> look untrained" in note for note in recorder.notes)


@pytest.mark.parametrize("token", ["</think>", "<|assistant|>"])
def test_delimiters_and_template_are_looked_at_whatever_the_data(token: str, tmp_path: Path) -> None:
    """The first rows hold no thought: the model may still be asked for one."""
    recorder = NotingRecorder()
    rows = [{"prompt": f"Q:{n}", "completion": str(n)} for n in range(20)]
    raw = write_untrained(tmp_path / "raw", token)
    run(settings(write_rows(tmp_path / "rows.jsonl", rows), epochs=1), raw, tmp_path / "run", recorder)
    assert any(f"warning: the embeddings of {token} look untrained" in note for note in recorder.notes)


def test_special_tokens_of_the_last_row_are_looked_at_too(tmp_path: Path) -> None:
    recorder = NotingRecorder()
    rows = [*({"prompt": f"Q:{n}", "completion": str(n)} for n in range(80)), {"prompt": "Q", "completion": "<answer>"}]
    raw = write_untrained(tmp_path / "raw", "<answer>")
    stage = settings(write_rows(tmp_path / "rows.jsonl", rows), max_steps=1)
    run(stage, raw, tmp_path / "run", recorder)
    assert any("warning: the embeddings of <answer> look untrained" in note for note in recorder.notes)


def test_delimiters_become_tokens_where_the_recipe_asks_for_it(base: Path, tmp_path: Path) -> None:
    """Sky-T1's are plain text to the tiny tokenizer; as tokens they are learned as a part of the thought."""
    path = write_rows(tmp_path / "rows.jsonl")
    as_text = settings(path, thinking="sky_t1", max_tokens=64, max_positions=300, too_long="cut")
    recorder = NotingRecorder()
    outcome = run(as_text.model_copy(update={"delimiters": "tokens", "max_steps": 1}), base, tmp_path / "a", recorder)
    four = "<|begin_of_thought|> <|end_of_thought|> <|begin_of_solution|> <|end_of_solution|>"
    assert any(f"new tokens, at the mean of the others: {four}" in note for note in recorder.notes)
    assert outcome.model is not None
    tokenizer = load_tokenizer(outcome.model)
    assert [len(tokenizer.encode(t)) for t in four.split()] == [1, 1, 1, 1]
    assert tokenizer.decode(tokenizer.encode(four), skip_special_tokens=True).split() == four.split()
    # By default nothing is added, and a stage with adapters, which could not learn new rows, says so.
    outcome = run(as_text.model_copy(update={"max_steps": 1}), base, tmp_path / "b")
    assert outcome.model is not None
    assert len(load_tokenizer(outcome.model)) == len(build_tiny_tokenizer())
    with pytest.raises(UserError, match=r"would be new tokens, and lora never trains .*delimiters: as_is"):
        run(settings(path, thinking="sky_t1", delimiters="tokens", lora={"rank": 2}), base, tmp_path / "c")


def test_a_warm_up_longer_than_the_data_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sft: warmup_steps is 99, but the data make 8 steps"):
        run(settings(write_rows(tmp_path / "rows.jsonl"), warmup_steps=99), base, tmp_path / "run")


def test_sequences_longer_than_the_model_knows_are_refused_until_it_is_told(base: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [*ROWS, {"prompt": "Q", "completion": "1 " * 50}])
    with pytest.raises(UserError, match="a sequence has 105 tokens, but the model knows 64 positions"):
        run(settings(path, max_tokens=120, token_budget=240), base, tmp_path / "a")
    outcome = run(settings(path, max_tokens=120, token_budget=240, max_positions=128), base, tmp_path / "b")
    assert outcome.model is not None
    assert read_config(outcome.model)["max_position_embeddings"] == 128


def test_the_learning_rate_ends_at_its_floor(base: Path, tmp_path: Path) -> None:
    recorder = NotingRecorder()
    stage = settings(write_rows(tmp_path / "rows.jsonl"), epochs=10, lr_floor=0.1, warmup_steps=4)
    run(stage, base, tmp_path / "run", recorder)
    rates = recorder.named("lr")
    assert rates[0] == pytest.approx(0.25 * 1e-2)
    assert max(rates) == pytest.approx(1e-2)
    assert rates[-1] == pytest.approx(1e-3, rel=0.05)


def test_a_wrong_tokenizer_a_damaged_base_and_a_damaged_checkpoint(base: Path, tmp_path: Path) -> None:
    stage = settings(write_rows(tmp_path / "rows.jsonl"))
    small = tmp_path / "small"
    write_model(tiny_model(vocab_size=20), build_tiny_tokenizer(), small)
    with pytest.raises(CheckpointError, match="this is not the model's tokenizer"):
        run(stage, small, tmp_path / "a")
    outcome = run(stage, base, tmp_path / "b")
    assert outcome.model is not None
    weights_file = outcome.model / "model.safetensors"
    content = weights_file.read_bytes()
    weights_file.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is damaged or truncated"):
        run(stage, base, tmp_path / "b")
    (base / "model.safetensors").write_bytes(content[:1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read .*damaged or truncated"):
        run(stage, base, tmp_path / "c")


def test_a_full_disk_leaves_the_last_good_checkpoint(base: Path, tmp_path: Path) -> None:
    stage = settings(write_rows(tmp_path / "rows.jsonl"))
    real, calls = checkpoints.save_file, []

    def full(*arguments: Any, **options: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(*arguments, **options)

    with patch.object(checkpoints, "save_file", full), pytest.raises(OSError, match="No space left"):
        run(stage, base, tmp_path / "run")
    assert checkpoints.latest_checkpoint(tmp_path / "run") == tmp_path / "run" / "step-000003"
    assert not list((tmp_path / "run").glob(".tmp*"))
    assert run(stage, base, tmp_path / "run").metrics["steps"] == 8
