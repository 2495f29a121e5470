"""`r1kit verify`: grade stored answers, offline."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from r1kit.cli.options import AnswerColumnOption, KindOption, PolicyOption, ProblemColumnOption, progress_on_stderr

if TYPE_CHECKING:
    from r1kit.tasks.grade import Graded, Refusals


def verify(
    pairs: Annotated[
        Path | None, typer.Option("--pairs", help="Rows of id, gold, prediction, kind and, if need be, policy.")
    ] = None,
    problems: Annotated[
        Path | None, typer.Option("--problems", help="Problems with their golds, or a run's rollouts.")
    ] = None,
    responses: Annotated[
        Path | None, typer.Option("--responses", help="Rows of a problem's id and a response, or a run's rollouts.")
    ] = None,
    kind: KindOption = None,
    policy: PolicyOption = None,
    verifier: Annotated[
        str | None,
        typer.Option("--verifier", help="A function of yours judges instead: module:function or file.py:function."),
    ] = None,
    problem_column: ProblemColumnOption = None,
    answer_column: AnswerColumnOption = None,
    opened: Annotated[bool, typer.Option("--opened", help="The prompts had opened <think>.")] = False,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="A row that cannot be judged is a skip.")] = False,
    summary: Annotated[bool, typer.Option("--summary", help="Count outcomes and reasons on standard error.")] = False,
) -> None:
    """Judge stored answers again: one JSON row each, in order, on standard output."""
    from r1kit.config.errors import UserError
    from r1kit.sandbox import use_sandbox
    from r1kit.tasks.grade import Refusals, grade, read_pairs, read_responses
    from r1kit.tasks.own_judge import OwnJudge, judge_of_run
    from r1kit.tasks.policies import read_policies

    if (pairs is None) == (problems is None or responses is None) or (pairs and (problems or responses)):
        raise UserError("expected --pairs FILE, or --problems FILE with --responses FILE")
    if verifier and policy:
        raise UserError(
            "--policy is a rule of our own verifiers, and --verifier judges in their place: give one of them"
        )
    own = OwnJudge(verifier) if verifier else None
    use_sandbox(None, tell=partial(typer.echo, err=True))
    refusals, policies = Refusals(keep_going), read_policies(policy or [], kind)
    if pairs is not None:
        jobs = read_pairs(pairs, refusals, kind=kind, policies=policies, own=own)
    else:
        assert problems is not None
        assert responses is not None
        if own is None and (named := judge_of_run(problems)) is not None:
            typer.echo(f"in this run {named} judged; here the rule of each kind does (--verifier {named})", err=True)
        jobs = read_responses(
            problems,
            responses,
            refusals,
            kind=kind,
            policies=policies,
            opened=opened,
            problem_column=tuple(problem_column or ()),
            answer_column=answer_column,
            own=own,
        )
    graded: list[Graded] = []
    began, progress = time.perf_counter(), progress_on_stderr()
    for row in grade(jobs):
        progress(len(graded), len(jobs))
        sys.stdout.write(json.dumps(row.to_json()) + "\n")
        graded.append(row)
    _report(graded, refusals, time.perf_counter() - began, summary)


def _report(graded: list[Graded], refusals: Refusals, seconds: float, summary: bool) -> None:
    """On standard error: rows that were refused, errors always; counts where asked."""
    for message in refusals.messages:
        typer.echo(f"skipped: {message}", err=True)
    troubles = Counter(row.trouble for row in graded if row.trouble)
    for trouble, count in troubles.items():
        typer.echo(f"a judge raised {trouble} ({count} rows)", err=True)
    counts = Counter((row.verdict.outcome, row.verdict.reason) for row in graded)
    undecided = sum(count for (outcome, _), count in counts.items() if outcome == "error")
    if undecided:
        typer.echo(f"{undecided} of {len(graded)} rows are errors of ours, not scores", err=True)
    if not summary:
        return
    for (outcome, reason), count in counts.most_common():
        typer.echo(f"{outcome:<6} {reason:<13} {count:>7}", err=True)
    voters = Counter(row.verdict.voter for row in graded if row.verdict.voter)
    typer.echo("voters: " + ", ".join(f"{name} {count}" for name, count in voters.most_common()), err=True)
    stored = [row for row in graded if row.job.before is not None]
    if stored:
        same = sum(row.verdict.score == row.job.before for row in stored)
        typer.echo(f"same score as stored: {same} of {len(stored)}", err=True)
    typer.echo(f"{len(graded)} rows in {seconds:.2f} s", err=True)
