"""What `groundup inspect` prints: the story, searches, documents, JSON; and nothing that a terminal would obey."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from inspect_helpers import DocumentFate, write_corpus_fixture
from rich.console import Console
from test_inspect import ASIDE, HITS, sample_documents

from groundup.core.errors import DataError
from groundup.text.documents import RejectsLogEntry
from groundup.text.inspect.collect import collect
from groundup.text.inspect.command import InspectQuery, run_inspect
from groundup.text.inspect.corpus import Corpus
from groundup.text.inspect.lookup import document_history, find_documents
from groundup.text.inspect.overview import print_report
from groundup.text.inspect.terminal import print_document, print_found

HOSTILE = "\x1b[2J\x1b]0;owned\x07 [bold]not markup[/bold]\r\u202egnp.exe \x9b31m\n\u2066forged\x7f"
OBEYED = set("\x1b\x07\r\u202e\u2066\x9b\x7f")


def printed(show: Callable[..., None], *what: Any, colour: bool = False) -> str:
    out = io.StringIO()
    show(*what[:1], Console(file=out, width=400, force_terminal=colour), *what[1:])
    return out.getvalue()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_corpus_fixture(tmp_path_factory.mktemp("world"), sample_documents(), ASIDE, HITS)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A corpus in which every string that comes from outside tries to steer the terminal."""
    h = HOSTILE
    duplicate_of = ("1" * 16, 0.9, h)
    fates = [
        DocumentFate("1" * 16, f"{h} quagga", "kept", h, h, h, h, "quagga", {"gopher_quality.words": 60.0}),
        DocumentFate(
            "2" * 16, f"{h} quagga two", f"dedup: {h}", h, h, h, h, None, {}, 1.0, 2.0, duplicate_of
        ),
    ]
    aside = [RejectsLogEntry("3" * 16, h, h, "ingest", "rejected", h, None, None, f"{h} quagga")]
    hits = [dict.fromkeys(("item", "task", "text"), h) | {"id": "1" * 16, "overlap": 13}]
    return write_corpus_fixture(tmp_path_factory.mktemp("hostile"), fates, aside, hits)


def test_the_terminal_shows_what_the_page_shows(world: Corpus) -> None:
    report = collect(world, "demo")
    said, redacted = printed(print_report, report), report.redactions[0][1]
    for part in (
        f"demo: {report.amount('').documents} of 300 documents kept",
        "words ≥ 50",
        "public domain",
        "\n  words ",
        "dropped: too_few_words",
        "just passed: too_few_words",
        "near, of",
        "largest: ",
        f"redacted: {redacted} email",
        "arc: 1 items met 1 times in 1 documents",
        "✓ 300 documents ingested",
    ):
        assert part in said, part


def test_the_bars_beyond_a_threshold_are_red(world: Corpus) -> None:
    line = next(line for line in printed(print_report, collect(world), colour=True).splitlines()
                if line.startswith("  words"))  # fmt: skip
    red, blue = line.index("\x1b[31m"), line.index("\x1b[34m")
    assert red < blue and "≥ 50, ≤ 100,000" in line


def test_before_curation_it_says_so(world: Corpus) -> None:
    said = printed(print_report, collect(Corpus(world.ingested), "demo"))
    assert "demo: 300 documents read, not curated yet" in said and "of read" in said and "reasons" in said


def test_documents_are_printed_as_they_were_found(world: Corpus) -> None:
    found = find_documents(world, "text number", limit=3)
    assert "first 3 results" in printed(print_found, found, 3) and "nothing found" in printed(
        print_found, [], 3
    )
    changed = printed(print_document, document_history(world, f"{22:016x}"))
    assert "privacy: changed, redacted" in changed and "<EMAIL>" in changed


def test_no_document_can_steer_the_terminal(
    hostile: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_inspect(hostile, HOSTILE, InspectQuery())
    for id in "123":
        run_inspect(hostile, "", InspectQuery(document=id))
        run_inspect(hostile, "", InspectQuery(document=id, as_json=True))
    run_inspect(hostile, "", InspectQuery(search="quagga"))
    run_inspect(hostile, "", InspectQuery(search="quagga", as_json=True))
    run_inspect(hostile, HOSTILE, InspectQuery(as_json=True))
    said = capsys.readouterr().out
    assert not OBEYED & set(said)
    assert said.count("[bold]not markup[/bold]") > 10 and "␛[2J" in said


def test_a_name_cannot_forge_a_line(hostile: Corpus) -> None:
    lines = printed(print_found, find_documents(hostile, "quagga"), 20).splitlines()
    assert len(lines) == 6 and not any(line.strip().startswith("\ufffdforged") for line in lines)


def test_json_says_the_same_as_was_stored(hostile: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    run_inspect(hostile, "demo", InspectQuery(document="1" * 16, as_json=True))
    said = json.loads(capsys.readouterr().out)
    assert said["text"] == f"{HOSTILE} quagga" and said["final"] == "quagga" and said["outcome"] == "kept"
    run_inspect(hostile, "demo", InspectQuery(as_json=True))
    assert json.loads(capsys.readouterr().out)["kept"]["documents"] == 1


def test_a_page_needs_a_place(world: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in (tmp_path / "nowhere" / "page.html", tmp_path):
        with pytest.raises(DataError, match="name a file in a folder that is there"):
            run_inspect(world, "demo", InspectQuery(page=place))
    run_inspect(world, "demo", InspectQuery(page=tmp_path / "page.html"))
    assert capsys.readouterr().out.split() == [str(tmp_path / "page.html")]
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
