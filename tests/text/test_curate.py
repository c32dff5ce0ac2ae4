"""Curate: what is kept, dropped and changed adds up."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from groundup.core.errors import DataError
from groundup.core.records import Document
from groundup.text.curate import Curate, apply
from groundup.text.documents import DOCUMENT_SCHEMA, DocumentWriter, count_rows, iter_tables, read_documents
from groundup.text.steps import Verdicts
from groundup.text.steps.length import Length

PROSE = "The keeper of tower {} lit {} lamps, and {} ships came home from the western sea."


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for n in range(30):
        (tmp_path / f"tale{n:02}.txt").write_text(PROSE.format(n, n * 7, n * 3))
    (tmp_path / "short.txt").write_text("Lamp.")
    (tmp_path / "twin.txt").write_text(PROSE.format(3, 21, 9).replace(" ", "  ") + "\n")
    (tmp_path / "chant.txt").write_text("Row the boat home.\n" * 40)
    return tmp_path


def test_read_is_kept_plus_dropped_and_the_ledger_says_why(
    corpus: Path, acquired: Callable[..., Any], curated: Callable[..., object]
) -> None:
    raw = acquired(corpus)
    built = curated(raw)
    metrics = built.metrics
    assert metrics["documents_read"] == raw.metrics["documents"] == 33
    assert metrics["documents_kept"] + metrics["documents_dropped"] == 33
    assert built.reasons() == {
        "short.txt": "too_few_chars",
        "chant.txt": "repeated_lines",
        "twin.txt": "exact_duplicate",
    }
    assert metrics["reasons"] == dict.fromkeys(built.reasons().values(), 1)
    entries = {entry.path: entry for entry in built.ledger()}
    assert (entries["short.txt"].value, entries["short.txt"].threshold) == (5, 32)
    assert entries["chant.txt"].step == "repetition"
    assert entries["twin.txt"].detail == f"same text as {built.ids()['tale03.txt']}"
    assert metrics["bytes_kept"] == sum(len(text.encode()) for text in built.texts().values())
    assert metrics["sources"]["files"]["documents_kept"] == metrics["documents_kept"] == len(built.texts())


def test_documents_keep_their_ids_and_order(
    corpus: Path, acquired: Callable[..., Any], curated: Callable[..., object]
) -> None:
    raw = acquired(corpus)
    kept, before = curated(raw).ids(), raw.ids()
    assert list(kept) == [path for path in before if path in kept]
    assert all(before[path] == identity for path, identity in kept.items())


def test_the_same_input_gives_the_same_bytes(
    corpus: Path, acquired: Callable[..., Any], curated: Callable[..., object]
) -> None:
    raw = acquired(corpus)
    one, two = curated(raw), curated(raw)
    for name in ("documents.parquet", "ledger.parquet"):
        assert (one.path / name).read_bytes() == (two.path / name).read_bytes()


def test_without_steps_and_deduplication_everything_stays(
    corpus: Path, acquired: Callable[..., Any], curated: Callable[..., object]
) -> None:
    raw = acquired(corpus)
    built = curated(raw, Curate(steps=(), deduplicate=False))
    assert built.texts() == raw.texts() and not built.ledger()


def test_nothing_left_names_the_top_reasons(
    corpus: Path, acquired: Callable[..., Any], curated: Callable[..., object]
) -> None:
    with pytest.raises(DataError, match=r"none of 33 documents is left.*too_few_words \(33\)"):
        curated(acquired(corpus), Curate(steps=(Length(min_chars=0, min_words=1000),)))


def test_a_blueprint_names_its_steps() -> None:
    recipe = Curate.model_validate({"steps": [{"use": "length", "min_words": 40}]})
    assert recipe.steps == (Length(min_words=40),)


def test_a_verdict_with_a_text_changes_the_document_and_keeps_it() -> None:
    rows = [Document(str(n), f"text {n}", "files", f"{n}.txt") for n in range(3)]
    table = pa.Table.from_pylist(
        [{f: getattr(r, f) for f in DOCUMENT_SCHEMA.names} for r in rows], DOCUMENT_SCHEMA
    )
    verdicts = Verdicts([None, "repaired", "bad"], [None, 1, 2], [None] * 3, text=[None, "new", None])
    kept, ledger = apply("repair", verdicts, table)
    assert kept.column("text").to_pylist() == ["text 0", "new"]
    assert ledger.column("fate").to_pylist() == ["changed", "dropped"]


def test_row_groups_stay_small_and_documents_stream_in_order(tmp_path: Path) -> None:
    with DocumentWriter(tmp_path / "documents.parquet") as writer:
        for n in range(0, 3000, 7):
            writer.write(Document(f"{i}", "x" * 10, "s", "p") for i in range(n, min(n + 7, 3000)))
        writer.write([Document("big", "y" * (9 << 20), "s", "p") for _ in range(4)])
    groups = list(iter_tables(tmp_path))
    assert max(group.num_rows for group in groups) <= 1024
    assert max(group.nbytes for group in groups) < 24 << 20
    ids = [document.id for document in read_documents(tmp_path)]
    assert ids == [str(n) for n in range(3000)] + ["big"] * 4 and count_rows(tmp_path) == len(ids)
