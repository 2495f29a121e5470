"""`r1kit doctor`: what this machine can run, and how fast."""

from __future__ import annotations

import typer


def doctor() -> None:
    """Say what this machine can run and how fast (measures for a few seconds)."""
    from r1kit.pipeline.doctor import examine

    findings = examine()
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        typer.echo(f"{finding.name:<{width}}  {finding.found}")
