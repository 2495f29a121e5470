"""Why this matters: the page shows text that a model wrote, opens years later, and must not call home.

Checks the page as a parser sees it: structure, anchors, escaping, no loads, size, damaged and missing files.
Does not exercise: rendering and scripts in a browser (looked at by hand in light, dark, narrow and print).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import zstandard

from r1kit.dashboard import ReportError, write_report
from r1kit.dashboard.assets import read_asset

VOID = {"meta", "path", "br", "link", "img", "input", "hr"}
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&<!--{{ 7*7 }}"


class Page(HTMLParser):
    """Elements, ids, links and inline scripts of a page; `problems` lists tags that do not close."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str | None, str]] = []
        self.problems: list[str] = []
        self.text: list[str] = []
        self.feed(self.source)
        self.close()
        self.problems += [f"never closed: {tag}" for tag in self.open]

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs).get("type"), ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"stray </{tag}> at {self.getpos()}")

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            kind, text = self.scripts.pop()
            self.scripts.append((kind, text + data))
        else:
            self.text.append(data)

    def values(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.elements if name in attrs]

    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def page(finished_run, tmp_path_factory):
    return Page(write_report(finished_run, tmp_path_factory.mktemp("page") / "sub" / "report.html"))


def copied(run: Path, target: Path) -> Path:
    return shutil.copytree(run, target / "run")


def test_every_element_closes_and_every_anchor_exists(page):
    assert page.problems == []
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {href[1:] for href in page.values("href")} <= set(ids)


def test_the_sections_are_there(page):
    wanted = {"result", "stage-rl", "stage-base", "tables", "examples", "rollouts", "cost", "provenance"}
    assert wanted | {"glossary", "recipe"} <= set(page.values("id"))
    words = page.words()
    for text in ("finished, expectations hold", "final.pass@1 >= 0.45", "Base against final", "c0ffee", "GiB"):
        assert text in words


def test_nothing_is_loaded_from_anywhere(page):
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"link", "img", "iframe", "object", "embed", "base", "audio", "video"}
    assert all(href.startswith("#") for href in page.values("href"))
    assert page.values("src") == []
    assert not re.search(r"url\(|@import|@font-face", read_asset("report.css") + read_asset("curve.css"))
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|innerHTML|eval\(", read_asset("report.js"))
    assert "http://" not in page.source
    assert "https://" not in page.source


def test_the_policy_lets_only_the_own_script_run(page):
    policy = next(a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a)
    assert "default-src 'none'" in policy
    (script,) = [text for kind, text in page.scripts if kind is None]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy


def test_the_data_of_the_script_is_json(page):
    plots, rollouts = (json.loads(text) for kind, text in page.scripts if kind == "application/json")
    assert set(plots) == set(page.values("data-plot"))
    assert rollouts["rollouts"]


def test_charts_and_controls_have_names(page):
    plots = [attrs for _, attrs in page.elements if "data-plot" in attrs]
    assert plots
    assert all(attrs.get("aria-label") for attrs in plots)
    assert all(attrs.get("aria-label") for _, attrs in page.elements if attrs.get("class") == "help")


def hostile_copy(finished_run: Path, tmp_path: Path) -> Path:
    """A run in which the model, the recipe and the lineage all attack the page."""
    run = copied(finished_run, tmp_path)
    for path in (run / "rollouts/rl").glob("*.zst"):
        rows = [json.loads(line) for line in zstandard.decompress(path.read_bytes()).splitlines()]
        for row in rows:
            row["problem"]["prompt"][0]["content"] = HOSTILE
            for rollout in row["rollouts"]:
                rollout["text"] = f"<think>{HOSTILE}\ud800\u2028</think><answer>{HOSTILE}</answer>"
                rollout["verdicts"]["accuracy"]["extracted"] = HOSTILE
        path.write_bytes(zstandard.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    for path in (run / "evaluations").glob("*/final.json"):
        evaluation = json.loads(path.read_text())
        for group in evaluation["examples"]:
            group["problem"]["prompt"][0]["content"] = HOSTILE
            for rollout in group["rollouts"]:
                rollout["text"] = HOSTILE + "\ud800"
        path.write_text(json.dumps(evaluation))
    recipe = (run / "recipe.resolved.yaml").read_text().replace("name: tinyzero", f"name: {json.dumps(HOSTILE)}")
    (run / "recipe.resolved.yaml").write_text(recipe)
    (run / "lineage.json").write_text(json.dumps({HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}]}))
    with (run / "metrics.jsonl").open("a") as out:
        out.write(json.dumps({"stage": "rl", "kind": "train", "step": 8, HOSTILE: 1.0}) + "\n")
    return run


def test_hostile_text_stays_text(finished_run, tmp_path):
    page = Page(write_report(hostile_copy(finished_run, tmp_path), tmp_path / "report.html"))
    assert page.problems == []
    assert [kind for kind, _ in page.scripts] == ["application/json", "application/json", None]
    assert "img" not in {tag for tag, _ in page.elements}
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    assert "alert(2)" in page.words()
    assert "{{ 7*7 }}" in page.words()
    rollouts = json.loads(page.scripts[1][1])["rollouts"]
    said = "".join(piece[1] for row in rollouts for _, pieces in row["regions"] for piece in pieces)
    assert "<script>alert(1)</script>" in said


@pytest.mark.parametrize(
    "missing",
    [
        "recipe.resolved.yaml",
        "metrics.jsonl",
        "summary.json",
        "lineage.json",
        "ledger.json",
        "stages",
        "rollouts",
        "evaluations",
        "checkpoints",
    ],
)
def test_any_file_may_be_missing(finished_run, tmp_path, missing):
    run = copied(finished_run, tmp_path)
    path = run / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = Page(write_report(run))
    assert page.problems == []
    assert {href[1:] for href in page.values("href")} <= set(page.values("id"))


def test_an_unfinished_run(stopped_run, tmp_path):
    page = Page(write_report(stopped_run, tmp_path / "report.html"))
    assert page.problems == []
    assert "unfinished run" in page.words()
    assert "rl: step 3 of 8; not started: final" in page.words()


def test_a_run_that_has_only_begun(tmp_path):
    (tmp_path / "recipe.resolved.yaml").write_text("name: bare\nstages:\n  rl: {kind: rl, steps: 5}\n")
    page = Page(write_report(tmp_path))
    assert page.problems == []
    assert "No evaluation yet" in page.words()


def test_no_run_no_report(tmp_path):
    with pytest.raises(ReportError, match="is not a run directory"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_page_is_replaced_whole(finished_run, tmp_path):
    target = tmp_path / "report.html"
    target.write_text("old")
    assert write_report(finished_run, target) == target
    assert target.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_the_size_is_capped(finished_run, tmp_path):
    """Many long rollouts: 60 steps of 40 groups of 16 responses of 6,000 characters would be over 200 MB."""
    run = copied(finished_run, tmp_path)
    path = next((run / "rollouts/rl").glob("*.zst"))
    first = json.loads(zstandard.decompress(path.read_bytes()).splitlines()[0])
    first["rollouts"] = [{**first["rollouts"][0], "sample": i, "text": "(1+2)=3?4 no\n" * 460} for i in range(16)]
    content = zstandard.compress((json.dumps(first) + "\n").encode() * 40)
    for step in range(1, 61):
        (run / f"rollouts/rl/step-{step:06d}.jsonl.zst").write_bytes(content)
    size = write_report(run).stat().st_size
    assert 500_000 < size < 3_000_000


def test_the_assets_cannot_end_their_element():
    assert "</script" not in read_asset("report.js").lower()
    assert "</style" not in read_asset("report.css").lower()
