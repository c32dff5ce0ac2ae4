"""Read = kept + dropped, on every kind of source; and a changed file is read again alone."""

import gzip
import json
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from format_helpers import PROSE, parquet, zipped
from groundup.core.progress import Reporter
from groundup.core.runtime import Runtime
from groundup.core.stage import StageContext
from groundup.text.curate.filter_pass import DOCUMENT_METRICS, KEPT
from groundup.text.documents import count_rows, iter_tables, read_rejects_log
from groundup.text.ingest.ingest import Ingest, ingest
from groundup.text.ingest.sources.files import Files
from groundup.text.ingest.sources.git import Git
from groundup.text.ingest.sources.stdlib import Stdlib
from text_helpers import Built, run_acquire, run_curate

WEB = Path(__file__).parents[4] / "shared/data/web/warc"


def mixed(folder: Path) -> Path:
    """Files of several formats, good ones and bad ones."""
    folder.mkdir()
    lines = [json.dumps({"text": f"{PROSE} Number {n}."}) for n in range(20)] + [
        "{broken",
        '{"other": 1}',
        "",
    ]
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    (folder / "table.parquet").write_bytes(parquet(text=[PROSE, None, "", PROSE * 2]))
    (folder / "page.html").write_text(f"<html><body><article><p>{PROSE * 5}</p></article></body></html>")
    (folder / "nothing.html").write_text("<html><body></body></html>")
    (folder / "long.txt").write_text("\n\n".join(f"{PROSE} {n}" for n in range(400)))
    (folder / "same.txt").write_text(PROSE * 5)
    (folder / "copy.txt").write_text(PROSE * 5)
    (folder / "archive.zip").write_bytes(zipped("a.txt"))
    (folder / "binary.bin").write_bytes(bytes(range(256)) * 20)
    (folder / "empty.txt").touch()
    (folder / "cut.txt.gz").write_bytes(gzip.compress(PROSE.encode() * 99)[:90])
    return folder


def committed(folder: Path) -> Path:
    mixed(folder)
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "one"],
    ):
        subprocess.run(["git", "-C", str(folder), "-c", "commit.gpgsign=false", *words], check=True)
    return folder


def crawl(folder: Path) -> Path:
    if not WEB.is_dir():
        pytest.skip(f"no {WEB}")
    return WEB


SOURCES: dict[str, Callable[[Path], Any]] = {
    "files": lambda folder: Files(paths=(str(mixed(folder)),)),
    "git": lambda folder: Git(repository=str(committed(folder))),
    "warc": lambda folder: Files(paths=(str(crawl(folder)),)),
    "stdlib": lambda folder: Stdlib(),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_file_and_document_is_accounted_for(kind: str, tmp_path: Path) -> None:
    recipe = Ingest(sources=(SOURCES[kind](tmp_path / "input"),), max_document_bytes=8192)
    work = StageContext(tmp_path / "ingest-a", Reporter(quiet=True))
    read = Built(tmp_path / "ingest-a", ingest(recipe, Runtime(), work))
    work.close()
    lines = [json.loads(line) for line in (read.path / "sources.jsonl").read_text().splitlines()]
    entries = Counter((entry.outcome, entry.reason) for entry in read_rejects_log(read.path))
    told = Counter(read.metrics["files_rejected"]) + Counter(read.metrics["records_rejected"])
    assert Counter({reason: n for (outcome, reason), n in entries.items() if outcome == "rejected"}) == told
    assert (
        Counter({reason: n for (outcome, reason), n in entries.items() if outcome == "changed"})
        == read.metrics["changed"]
    )
    for name in ("records_rejected", "changed"):
        of_files = sum((Counter(line.get(name, {})) for line in lines), Counter())
        assert of_files == read.metrics[name], "each file's own counts are in sources.jsonl"
    assert sum(line["documents"] for line in lines) == read.metrics["documents"] == count_rows(read.path)
    assert [line["path"] for line in lines] == [file.path for file in recipe.sources[0].files()]
    kept = run_curate(tmp_path / "curate-a", read)
    account = kept.metrics
    assert account["documents_read"] == read.metrics["documents"]
    assert account["documents_read"] == account["documents_kept"] + sum(account["reasons"].values())
    assert account["documents_kept"] == count_rows(kept.path)
    dropped = Counter(entry.reason for entry in read_rejects_log(kept.path) if entry.outcome == "dropped")
    assert dropped == account["reasons"]
    outcomes = Counter(
        outcome
        for table in iter_tables(kept.path, DOCUMENT_METRICS)
        for outcome in table.column("outcome").to_pylist()
    )
    assert outcomes.total() == account["documents_read"] and outcomes[KEPT] == account["documents_kept"]
    reasons = Counter[str]()
    for outcome, count in outcomes.items():
        reasons.update({outcome.split(": ")[-1]: count} if outcome != KEPT else {})
    assert reasons == account["reasons"]
    for source in account["sources"].values():
        assert (
            source["bytes_kept"] <= source["bytes_read"]
            and source["documents_kept"] <= source["documents_read"]
        )


def test_a_changed_file_is_read_again_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, opened = mixed(tmp_path / "input"), list[str]()
    original = Files.read

    def watched(self: Files, path: str, *rest: Any) -> Any:
        opened.append(path)
        return original(self, path, *rest)

    monkeypatch.setattr(Files, "read", watched)
    first = run_acquire(tmp_path / "ingest-a", folder)
    (first.path / "manifest.json").write_text("{}")
    assert len(opened) >= 5 and not first.metrics["sources"]["files"].get("files_unchanged")
    opened.clear()
    (folder / "same.txt").write_text(PROSE * 6)
    second = run_acquire(tmp_path / "ingest-b", folder)
    assert opened == ["same.txt"]
    fresh = run_acquire(tmp_path / "fresh" / "ingest-c", folder)
    assert second.files() == fresh.files() and len(opened) > 5
