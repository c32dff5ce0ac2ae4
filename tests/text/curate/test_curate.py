"""Curate: what is kept, dropped and changed adds up."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from groundup.core.errors import DataError
from groundup.core.recipe import Recipe
from groundup.core.records import Document
from groundup.core.runtime import Runtime
from groundup.text.batch import DocumentBatch
from groundup.text.curate.curate import Curate
from groundup.text.curate.decontaminate import Decontaminate
from groundup.text.curate.dedup import Dedup
from groundup.text.curate.filter_pass import Counters, apply_steps
from groundup.text.curate.mix import Mix
from groundup.text.curate.steps.length import Length
from groundup.text.curate.types import FilterResult
from groundup.text.documents import DocumentWriter, count_rows, iter_tables, read_documents
from text_helpers import run_acquire, run_curate

PROSE = "The keeper of tower {} lit {} lamps, and {} ships came home from the western sea."


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for n in range(30):
        (tmp_path / f"tale{n:02}.txt").write_text(PROSE.format(n, n * 7, n * 3))
    (tmp_path / "short.txt").write_text("Lamp.")
    (tmp_path / "twin.txt").write_text(PROSE.format(3, 21, 9).replace(" ", "  ") + "\n")
    (tmp_path / "chant.txt").write_text("Row the boat home.\n" * 40)
    return tmp_path


def test_documents_read_are_kept_plus_dropped_and_the_rejects_log_has_the_reasons(
    corpus: Path, ingested: Callable[..., Any], curated: Callable[..., Any]
) -> None:
    raw = ingested(corpus)
    built = curated(raw, Curate(dedup=Dedup(keep="earliest", fuzzy=False)))
    metrics = built.metrics
    assert metrics["documents_read"] == raw.metrics["documents"] == 33
    assert metrics["documents_kept"] + metrics["documents_dropped"] == 33
    assert built.reasons().keys() == {"short.txt", "chant.txt", "twin.txt"}
    assert built.reasons()["short.txt"] == "too_few_chars"
    assert metrics["reasons"] == dict.fromkeys(built.reasons().values(), 1)
    entries = {entry.path: entry for entry in built.rejects()}
    assert (entries["short.txt"].value, entries["short.txt"].threshold) == (5, 32)
    assert entries["twin.txt"].detail == f"same text as {built.ids()['tale03.txt']}"
    assert metrics["bytes_kept"] == sum(len(text.encode()) for text in built.texts().values())
    assert metrics["sources"]["files"]["documents_kept"] == metrics["documents_kept"] == len(built.texts())
    (twin,) = pq.read_table(built.path / "clusters.parquet").to_pylist()
    assert (twin["kept"], twin["kind"]) == (built.ids()["tale03.txt"], "exact")


def test_every_document_read_has_one_row_of_metrics_with_its_outcome(
    corpus: Path, ingested: Callable[..., Any], curated: Callable[..., Any]
) -> None:
    raw = ingested(corpus)
    built = curated(raw, Curate(dedup=Dedup(keep="earliest", fuzzy=False)))
    rows = [row for table in iter_tables(built.path, "document_metrics") for row in table.to_pylist()]
    assert [row["id"] for row in rows] == list(raw.ids().values())
    outcomes = Counter(row["outcome"].split(":")[0] for row in rows)
    assert outcomes == {"kept": 30, "length": 1, "gopher_repetition": 1, "dedup": 1}
    assert {row["path"] for row in rows if row["outcome"] == "kept"} == built.texts().keys()
    assert all(row["language"] for row in rows), "also of those that were dropped"
    assert sum(row["bytes_kept"] for row in rows) == built.metrics["bytes_kept"]
    assert all(row["length.chars"] > 32 for row in rows if row["outcome"] == "kept")
    rules = json.loads((built.path / "rules.json").read_text())
    assert {"step": "length", "reason": "too_few_chars", "metric": "length.chars", "at_least": 32} in rules
    assert {rule["metric"] for rule in rules} <= set(rows[0])


def test_near_duplicates_go_and_the_longest_stays(
    tmp_path: Path, ingested: Callable[..., Any], curated: Callable[..., Any]
) -> None:
    words = [f"word{n * 7 % 101}x{n}" for n in range(200)]
    (tmp_path / "a.txt").write_text(" ".join(words))
    (tmp_path / "b.txt").write_text(" ".join([*words, "and", "one", "more"]))
    (tmp_path / "c.txt").write_text(" ".join(reversed(words)))
    built = curated(ingested(tmp_path), Curate(steps=()))
    assert set(built.texts()) == {"b.txt", "c.txt"}
    (entry,) = built.rejects()
    assert (entry.reason, entry.detail) == ("near_duplicate", f"near {built.ids()['b.txt']}")
    assert entry.value == pytest.approx(196 / 199)


def test_documents_keep_their_ids_and_order(
    corpus: Path, ingested: Callable[..., Any], curated: Callable[..., Any]
) -> None:
    raw = ingested(corpus)
    kept, before = curated(raw).ids(), raw.ids()
    assert list(kept) == [path for path in before if path in kept]
    assert all(before[path] == identity for path, identity in kept.items())


def test_the_same_input_gives_the_same_bytes(
    corpus: Path, ingested: Callable[..., Any], curated: Callable[..., Any]
) -> None:
    raw = ingested(corpus)
    assert curated(raw).files() == curated(raw).files()


def test_without_steps_and_deduplication_everything_stays(
    corpus: Path, ingested: Callable[..., Any], curated: Callable[..., Any]
) -> None:
    raw = ingested(corpus)
    built = curated(raw, Curate(steps=(), dedup=Dedup(exact=False, fuzzy=False)))
    assert built.texts() == raw.texts() and not built.rejects()


def test_nothing_left_names_the_top_reasons(
    corpus: Path, ingested: Callable[..., Any], curated: Callable[..., Any]
) -> None:
    with pytest.raises(DataError, match=r"none of 33 documents is left.*too_few_words \(33\)"):
        curated(ingested(corpus), Curate(steps=(Length(min_chars=0, min_words=1000),)))


def test_a_blueprint_names_its_steps() -> None:
    recipe = Curate.model_validate({"steps": [{"use": "length", "min_words": 40}]})
    assert recipe.steps == (Length(min_words=40),)


def test_evaluation_items_are_found_and_reported(
    corpus: Path,
    tmp_path_factory: pytest.TempPathFactory,
    ingested: Callable[..., Any],
    curated: Callable[..., Any],
) -> None:
    items = tmp_path_factory.mktemp("sets") / "exam.jsonl"
    items.write_text(
        json.dumps({"question": PROSE.format(4, 28, 12)}) + "\n" + json.dumps({"q": "too short"})
    )
    recipe = Curate(
        steps=(), dedup=Dedup(exact=False, fuzzy=False), decontaminate=Decontaminate(paths=(str(items),))
    )
    built = curated(ingested(corpus), recipe)
    (entry,) = built.rejects()
    assert (entry.path, entry.step, entry.reason) == ("tale04.txt", "decontaminate", "evaluation_item")
    (hit,) = pq.read_table(built.path / "decontamination.parquet").to_pylist()
    assert (hit["item"], hit["id"]) == ("exam.jsonl#1", entry.id)
    decontamination = built.metrics["decontamination"]
    assert (decontamination["items"], decontamination["items_too_short"]) == (2, 1)


def test_a_mixture_repeats_samples_and_shuffles_and_adds_up(
    corpus: Path, ingested: Callable[..., Any], curated: Callable[..., Any]
) -> None:
    raw = ingested(corpus)
    whole = curated(raw, Curate(mix=Mix(shuffle=True)))
    plain = curated(raw)
    assert sorted(whole.texts()) == sorted(plain.texts()) and list(whole.texts()) != list(plain.texts())
    twice = curated(raw, Curate(mix=Mix(total_bytes=plain.metrics["bytes_kept"] * 2, max_epochs=2.0)))
    ids = [document.id for document in read_documents(twice.path)]
    assert Counter(Counter(ids).values()) == {2: plain.metrics["documents_kept"]}
    half = curated(raw, Curate(mix=Mix(total_bytes=plain.metrics["bytes_kept"] // 2)))
    assert 0 < half.metrics["documents_kept"] < plain.metrics["documents_kept"]
    assert half.metrics["documents_kept"] + half.metrics["documents_dropped"] == 33
    assert (
        half.metrics["reasons"]["not_sampled"]
        == plain.metrics["documents_kept"] - half.metrics["documents_kept"]
    )


class Repair(Recipe):
    """Changes one document, drops another, and measures all."""

    def apply(self, batch: DocumentBatch) -> FilterResult:
        reason = [{"1": "repaired", "2": "bad"}.get(identity) for identity in batch.strings("id")]
        text = ["new" if why == "repaired" else None for why in reason]
        blank: list[float | None] = [None] * batch.rows
        return FilterResult(
            reason, blank, blank, text=text, metrics={"bytes": batch.bytes.astype(np.float64)}
        )


def test_a_verdict_with_a_text_changes_the_document_and_keeps_it(tmp_path: Path) -> None:
    with DocumentWriter(tmp_path / "0.parquet") as writer:
        writer.write(Document(str(n), f"text {n}", "files", f"{n}.txt") for n in range(3))
    table = pq.read_table(tmp_path / "0.parquet")
    tally = Counters()
    made = apply_steps(
        table, [("repair", Repair()), ("again", Repair())], ("repair.bytes", "again.bytes"), tally
    )
    assert made.documents.column("text").to_pylist() == ["text 0", "new"]
    assert made.rejects.column("outcome").to_pylist() == ["changed", "dropped", "changed"]
    assert made.metrics.column("outcome").to_pylist() == ["kept", "kept", "repair: bad"]
    assert made.metrics.column("repair.bytes").to_pylist() == [6, 6, 6]
    again = made.metrics.column("again.bytes").to_pylist()
    assert again[:2] == [6, 3] and np.isnan(again[2])
    assert tally.counts["step repair"] == {
        "documents": 3,
        "bytes": 18,
        "dropped": 1,
        "bytes_dropped": 6,
        "changed": 1,
    }


def test_row_groups_stay_small_and_documents_stream_in_order(tmp_path: Path) -> None:
    with DocumentWriter(tmp_path / "documents" / "0.parquet") as writer:
        for n in range(0, 3000, 7):
            writer.write(Document(f"{i}", "x" * 10, "s", "p") for i in range(n, min(n + 7, 3000)))
        writer.write([Document("big", "y" * (9 << 20), "s", "p") for _ in range(4)])
    groups = list(iter_tables(tmp_path))
    assert max(group.num_rows for group in groups) <= 1024
    assert max(group.nbytes for group in groups) < 24 << 20
    ids = [document.id for document in read_documents(tmp_path)]
    assert ids == [str(n) for n in range(3000)] + ["big"] * 4 and count_rows(tmp_path) == len(ids)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Daft's pipes, closed late
def test_workers_and_shards_do_not_change_a_byte(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process or two, with shards small enough that there are several."""
    from groundup.text import executor, shards

    monkeypatch.setattr(shards, "SHARD_BYTES", 1 << 14)
    lines = [json.dumps({"text": PROSE.format(n, n * 7, n % 50) * 3}) for n in range(1500)]
    (tmp_path / "tales.jsonl").write_text("\n".join(lines))
    raw = run_acquire(tmp_path_factory.mktemp("ingest"), tmp_path)
    assert len(list((raw.path / "documents").iterdir())) > 10
    recipe = Curate(mix=Mix(shuffle=True, total_bytes=200_000))
    one = run_curate(tmp_path_factory.mktemp("curate"), raw, recipe, Runtime(workers=1))
    monkeypatch.setattr(executor, "SMALL_BYTES", 0)
    two = run_curate(tmp_path_factory.mktemp("curate"), raw, recipe, Runtime(workers=2))
    assert one.files() == two.files() and one.metrics == two.metrics
