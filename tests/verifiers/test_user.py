"""Why this matters: whatever a user's verifier does, it must not stop a run, nor become a score that nobody gave.

Not exercised: limits of time or memory; the user's own code has none.
"""

from __future__ import annotations

import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1kit.config.errors import ConfigError
from r1kit.records import Message, Problem, Verdict
from r1kit.verifiers.user import UserVerifier, load_function, source_file

PROBLEM = Problem("p", (Message("text", "Q"),), "mine", {"gold": "7"})
FUNCTIONS = """\
import sys
import numpy as np
from r1kit.records import Verdict

def exact(problem, response):
    return response.strip() == problem.payload["gold"]

def share(problem, response):
    return np.float32(0.25)

def verdict(problem, response):
    return Verdict.scored(0, "unparsable", extracted=response)

def lost(problem, response):
    return Verdict("error", None, "worker_lost")

def raises(problem, response):
    raise RuntimeError("no " + response)

def leaves(problem, response):
    sys.exit(0)

def big(problem, response):
    return 2

def nothing(problem, response):
    pass

def huge(problem, response):
    return 10**5000

class Mute:
    def __repr__(self):
        raise ValueError("no words")

def mute(problem, response):
    return Mute()

CONSTANT = 3
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mine") / "mine.py"
    path.write_text(FUNCTIONS)
    return path


def test_what_a_function_returns_becomes_a_verdict(file: Path) -> None:
    exact = UserVerifier(f"{file}:exact")
    right, wrong = exact(PROBLEM, " 7 "), exact(PROBLEM, "8")
    assert (right.score, right.reason, right.voter) == (1.0, "correct", f"{file}:exact")
    assert (wrong.score, wrong.reason) == (0.0, "wrong")
    assert right.seconds > 0
    assert UserVerifier(f"{file}:share")(PROBLEM, "").score == 0.25
    assert UserVerifier(f"{file}:verdict")(PROBLEM, "x") == Verdict.scored(0, "unparsable", extracted="x")
    assert UserVerifier(f"{file}:lost")(PROBLEM, "x") == Verdict("error", None, "worker_lost")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("raises", "raised RuntimeError"),
        ("leaves", "raised SystemExit"),
        ("big", "returned 2: return True or False, a number from 0 to 1, or an r1kit.records.Verdict"),
        ("nothing", "returned None: return True or False"),
        ("huge", "returned something of type int: return True or False"),
        ("mute", "returned something of type Mute: return True or False"),
    ],
)
def test_failures_are_errors_told_once_and_counted(
    file: Path, name: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    verifier = UserVerifier(f"{file}:{name}")
    with caplog.at_level(logging.ERROR):
        verdicts = [verifier(PROBLEM, f"answer {i}") for i in range(4)]
    assert {(v.outcome, v.score, v.reason) for v in verdicts} == {("error", None, "voter_failed")}
    assert verifier.function.errors == 4
    assert len(caplog.records) == 1
    assert told in caplog.text


def test_the_traceback_is_the_users(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        UserVerifier(f"{file}:raises")(PROBLEM, "luck")
    told = caplog.records[0].getMessage()
    assert f'File "{file}", line 18, in raises' in told
    assert 'raise RuntimeError("no " + response)' in told
    assert told.endswith("RuntimeError: no luck")
    assert "r1kit/verifiers" not in told


def test_an_interrupt_is_the_users_wish(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verifier = UserVerifier(f"{file}:exact")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verifier.function, "_function", interrupted)
    with pytest.raises(KeyboardInterrupt):
        verifier(PROBLEM, "7")


@given(st.one_of(st.booleans(), st.integers(), st.floats(), st.text(), st.none(), st.just(np.float64(0.5))))
def test_only_a_number_from_0_to_1_becomes_a_score(value: object) -> None:
    verifier = UserVerifier("math:isclose")
    verifier.function._function = lambda *_: value
    found = verifier(PROBLEM, "")
    good = isinstance(value, bool | int | float) and 0 <= value <= 1
    assert found.outcome == ("score" if good else "error")
    assert found.score == (value if good else None)


def test_errors_are_counted_right_from_threads(file: Path) -> None:
    verifier = UserVerifier(f"{file}:raises")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: verifier(PROBLEM, str(i)), range(400)))
    assert verifier.function.errors == 400


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("exact", "expected module:function or path/to/file.py:function"),
        ("nowhere/mine.py:exact", "there is no file nowhere/mine.py"),
        ("no_such_package.part:exact", "no module 'no_such_package': install it, set PYTHONPATH"),
        ("math:isclos", r"has no function 'isclos' \(did you mean \"isclose\"\?\)"),
    ],
)
def test_a_path_that_leads_nowhere_says_so(spec: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_function(spec)


def test_a_name_that_is_no_function_says_so(file: Path) -> None:
    with pytest.raises(ConfigError, match="has no function 'CONSTANT'"):
        load_function(f"{file}:CONSTANT")


def test_a_file_that_cannot_be_imported_shows_where(tmp_path: Path) -> None:
    path = tmp_path / "half.py"
    path.write_text("import no_such_thing\n")
    with pytest.raises(ConfigError, match=r'half.py", line 1(.|\n)*No module named .no_such_thing'):
        load_function(f"{path}:f")
    path.write_text("def f(:\n")
    with pytest.raises(ConfigError, match="SyntaxError"):
        load_function(f"{path}:f")
    assert not any(name.startswith("_r1kit_user_half") for name in sys.modules)


def test_an_edited_file_is_read_anew_and_dataclasses_work(tmp_path: Path) -> None:
    """Within one second and with the same size, where a cached .pyc would be taken for the new text."""
    path = tmp_path / "mine.py"
    body = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n"
    for value in (1, 2):
        path.write_text(f"{body}def f(): return A({value}).x\n")
        assert load_function(f"{path}:f")() == value
    assert load_function(f"{path}:f") is load_function(f"{path}:f")


def test_the_file_behind_a_function(file: Path) -> None:
    assert source_file(f"{file}:exact") == file
    found = source_file("r1kit.records:Verdict")
    assert found is not None
    assert found.name == "records.py"
    assert source_file("math:isclose") is None or source_file("math:isclose").suffix == ".so"  # type: ignore[union-attr]
    assert source_file("no_such_package.part:f") is None
