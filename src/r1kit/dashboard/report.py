"""`write_report`: a run directory becomes one HTML file that opens offline and loads nothing.

Left out on purpose: a server, a framework, anything fetched. Texts of the model pass through autoescaping or
into JSON that cannot close its script element, and a content security policy lets no other script run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import r1kit
from r1kit.atomic import write_atomic
from r1kit.dashboard import formats, health, overview
from r1kit.dashboard.assets import read_asset
from r1kit.dashboard.browser import make_bundle
from r1kit.dashboard.comparison import compare
from r1kit.dashboard.examples import make_examples
from r1kit.dashboard.glossary import GLOSSARY, entry_of
from r1kit.dashboard.plots import PlotGroup, stage_plots
from r1kit.dashboard.run_data import RunData, StageData, load_run

REPORT_NAME = "report.html"
STAGE_TITLES = {
    "rl": "Reinforcement learning",
    "pretrain": "Pre-training",
    "generate": "Generated answers",
    "journey": "Written searches",
    "sft": "Supervised fine-tuning",
    "evaluate": "Evaluation",
    "report": "Report",
}


@dataclass(frozen=True)
class StageSection:
    """The charts of one stage; `evals` are its rows of held-out evaluations."""

    stage: StageData
    title: str
    groups: list[PlotGroup]

    @property
    def anchor(self) -> str:
        return f"stage-{self.stage.name}"


def write_report(run_directory: Path, destination: Path | None = None) -> Path:
    """Write the report of `run_directory` and return its path (default: report.html in the run directory).

    Missing files, unfinished and failed stages are shown as such. ReportError where there is no run at all.
    """
    run = load_run(Path(run_directory))
    target = Path(destination) if destination is not None else run.directory / REPORT_NAME
    page = render(run)
    # A reader never sees half a page; a sampled lone surrogate has no UTF-8.
    write_atomic(target, page.encode("utf-8", "replace"))
    return target


def render(run: RunData) -> str:
    """The page as text."""
    comparison = compare(run)
    sections = _sections(run)
    bundle = make_bundle(run)
    plots = [plot for section in sections for group in section.groups for plot in group.plots]
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            run=run,
            title=overview.title(run),
            headline=overview.headline(run, comparison),
            status=overview.status(run),
            expectations=overview.expectations(run),
            setup=overview.setup(run),
            cards=overview.cards(run, comparison),
            track=overview.track(comparison),
            comparison=comparison,
            findings=health.find(run, comparison),
            sections=sections,
            examples=make_examples(run, comparison),
            bundle=bundle,
            plot_data=_script_json({plot.id: plot.data for plot in plots}),
            bundle_data=_script_json(bundle.to_json()),
            stages=overview.stage_rows(run),
            ledger=overview.ledger_facts(run),
            lineage=overview.lineage_rows(run),
            glossary=GLOSSARY,
            notes=run.notes,
            version=r1kit.__version__,
            css=Markup(read_asset("report.css")),
            js=Markup(read_asset("report.js")),
            script_hash=_script_hash(read_asset("report.js")),
        )
    )


def _sections(run: RunData) -> list[StageSection]:
    """Stages with charts: reinforcement learning first (the result), the rest in the recipe's order."""
    sections = [
        StageSection(stage, STAGE_TITLES.get(stage.kind, stage.kind), stage_plots(stage)) for stage in run.stages
    ]
    return sorted((s for s in sections if s.groups), key=lambda s: s.stage.kind != "rl")


def _script_json(value: Any) -> Markup:
    """JSON for a script element: no `<`, `>` or `&`, so that no text in it can end the element."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _script_hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("r1kit.dashboard", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": formats.number,
        "interval": formats.interval,
        "duration": formats.duration,
        "compact": formats.compact,
        "memory": formats.memory,
    }
    environment.globals["term"] = entry_of
    return environment
