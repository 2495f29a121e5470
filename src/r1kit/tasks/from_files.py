"""Tasks over data files: math, code, choice, instruction, and the user's own questions and answers.

Nothing that is wrong with a row is passed over: it ends the run, by file and line, or (`bad_rows: skip`) is left out
and counted. What is left out without being wrong (a problem that is there twice, a training problem that nearly equals
a held-out one) is counted as well; `notes` says all of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from r1kit.config.data_path import find_data
from r1kit.config.errors import UserError
from r1kit.records import Problem
from r1kit.tasks.check_data import Finding
from r1kit.tasks.columns import OWN
from r1kit.tasks.intake import Intake, take_in
from r1kit.tasks.item_problems import problem_of
from r1kit.tasks.policies import check_policy
from r1kit.tasks.question_task import QuestionTask

KINDS_OF_TASKS = {"math": "math", "code": "code", "choice": "choice", "instruction": "instructions"}
SHOWN = 10
# Settings that say how a question is asked: the rows are read alike whatever they are.
ASKING = {"template", "system", "prompt", "prefill", "format", "train_problems", "test_problems", "permute", "bad_rows"}

# The stages of a run make the task anew; files that are as they were are not read and checked again.
_taken: dict[str, Intake] = {}


class FileTask(QuestionTask):
    """`settings`: a `config.tasks.DataTaskSettings`. UserError where the policy is none of the verifier's."""

    def __init__(self, settings: Any) -> None:
        own = settings.own_verifier if settings.name == "file" else None
        kind = OWN if own else KINDS_OF_TASKS.get(settings.name) or settings.verifier
        super().__init__(settings, kind, own)
        check_policy(kind, settings.policy, "task.policy")

    @cached_property
    def intake(self) -> Intake:
        """What the files hold. UserError names what is wrong with them, unless bad rows are to be left out."""
        found = self._read()
        if found.findings and self.settings.bad_rows == "fatal":
            raise UserError(_refusal(found))
        return found

    def _read(self) -> Intake:
        stats = [find_data(path).stat() for path in dict.fromkeys(self.settings.data_files)]
        reading = self.settings.model_dump_json(exclude=ASKING)
        key = f"{self.kind} {reading} {[(s.st_ino, s.st_mtime_ns, s.st_size) for s in stats]}"
        if key not in _taken:
            _taken.clear()  # one task at a time
            _taken[key] = take_in(self.settings, self.kind)
        return _taken[key]

    def load(self) -> Mapping[str, Sequence[Problem]]:
        return {
            side: [
                problem_of(
                    entry.item,
                    self.prompter,
                    self.settings,
                    kind=self.kind,
                    id=entry.id,
                    source=entry.source,
                    family=entry.family,
                    split=side,
                    difficulty=entry.difficulty,
                )
                for entry in self.intake.side(side)
            ]
            for side in ("train", "test")
        }

    def notes(self) -> list[str]:
        intake = self.intake
        lines = [f"{path}: {columns}" for path, columns in intake.columns.items()]
        counts = Counter(intake.left_out)
        examples = dict(intake.examples)
        for finding in intake.findings:
            why = f"wrong ({finding.check})"
            counts[why] += 1
            examples.setdefault(why, f"{finding.place}: {finding.message}")
        kept = sum(entry.side != "" for entry in intake.entries)
        left = "; ".join(f"{count} {why}, such as {examples[why]}" for why, count in counts.items())
        return [*lines, f"{kept} of {intake.rows} rows are used" + (f"; left out: {left}" if left else "")]


def _refusal(intake: Intake) -> str:
    findings: list[Finding] = intake.findings
    shown = [f"    {f.place}: {f.message}" for f in findings[:SHOWN]]
    more = f"\n    and {len(findings) - SHOWN} more" if len(findings) > SHOWN else ""
    return (
        f"something is wrong with {len({f.place for f in findings})} of {intake.rows} rows of the task's data:\n"
        + "\n".join(shown)
        + f"{more}\nMend them (r1kit data check FILE lists all), or set task.bad_rows: skip to leave them out, counted."
    )
