"""What is rebuilt: an input's content decides, never its fingerprint; nothing is published under a wrong one."""

import json
import os
import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest

from groundup.core.builder import Builder, PipelineBuilder
from groundup.core.digests import UNCACHED, DigestCache
from groundup.core.errors import DamagedInputError, InputChangedError
from groundup.core.progress import Reporter
from groundup.core.recipe import Recipe
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, Metrics, StageContext, stage
from groundup.core.status import StageCollector, StageReport, stage_reports
from groundup.core.store import Store, verify

CALLS: list[str] = []
EDITS: list[Any] = []
"""Functions that the next runs of `read` call while they read."""


class Read(Recipe):
    """Reads a file: its first line is the document, the second the reason of a reject."""

    not_identity: ClassVar[frozenset[str]] = frozenset({"path"})
    path: str = ""


class Count(Recipe):
    """Counts letters."""

    times: int = 1


def external(recipe: Read, digests: DigestCache = UNCACHED) -> str:
    return digests.sha256(Path(recipe.path))


@stage(version=1, kind="corpus", external_digest=external)
def read(recipe: Read, runtime: Runtime, context: StageContext) -> Metrics:
    CALLS.append("read")
    text, reason = Path(recipe.path).read_text().splitlines()
    if EDITS:
        EDITS.pop(0)()
    context.file("documents/0.txt").write_text(text)
    context.file("rejects.txt").write_text(reason)
    return {"reason": reason}


@stage(version=1, kind="scores")
def count(recipe: Count, runtime: Runtime, context: StageContext, documents: Artifact) -> Metrics:
    CALLS.append("count")
    letters = len((documents.path / "documents" / "0.txt").read_text()) * recipe.times
    context.file("letters.txt").write_text(str(letters))
    return {"letters": letters}


@stage(version=1, kind="book", reads_records=True)
def report(
    recipe: Count, runtime: Runtime, context: StageContext, documents: Artifact, letters: Artifact
) -> Metrics:
    CALLS.append("report")
    return {"reason": documents.metrics()["reason"], "letters": letters.metrics()["letters"]}


@pytest.fixture(autouse=True)
def _clear() -> None:
    CALLS.clear()
    EDITS.clear()


def builder(store: Store) -> Builder:
    return Builder(store, Runtime(), Reporter(quiet=True), store.previous_manifests("r"))


def pipeline(build: PipelineBuilder, file: Path, times: int = 1) -> dict[str, Artifact]:
    documents = build(read, Read(path=str(file)))
    letters = build(count, Count(times=times), documents)
    build(report, Count(), documents, letters)
    return build.artifacts


def run(store: Store, file: Path, times: int = 1) -> dict[str, Artifact]:
    """A run and its record; CALLS names the stages that were built."""
    CALLS.clear()
    artifacts = pipeline(builder(store), file, times)
    store.record_run("r", artifacts, {})
    return artifacts


def status(store: Store, file: Path, times: int = 1) -> dict[str, StageReport]:
    collector = StageCollector()
    pipeline(collector, file, times)
    reports = stage_reports(collector.stages, store, store.previous_manifests("r"), store.digests())
    return {item.label: item for item in reports}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file.txt"
    path.write_text("document\ntoo short\n")
    return path


def test_a_changed_reject_rebuilds_what_prints_it_and_nothing_else(store: Store, file: Path) -> None:
    before = run(store, file)
    file.write_text("document\nbinary\n")
    after = run(store, file)
    assert CALLS == ["read", "report"]
    assert after["count"] == before["count"]
    assert after["report"].metrics()["reason"] == "binary"


def test_a_changed_document_rebuilds_everything(store: Store, file: Path) -> None:
    run(store, file)
    file.write_text("documents\ntoo short\n")
    run(store, file)
    assert CALLS == ["read", "count", "report"]


def test_an_input_rebuilt_to_the_same_bytes_rebuilds_nothing_that_reads_its_content(
    store: Store, file: Path
) -> None:
    shutil.rmtree(run(store, file)["read"].path)
    run(store, file)
    # The report prints the times of every stage, which may be the same by chance.
    assert CALLS in (["read", "report"], ["read"])


def test_without_a_change_nothing_is_built_or_to_build(store: Store, file: Path) -> None:
    run(store, file)
    run(store, file)
    assert CALLS == []
    assert {item.state for item in status(store, file).values()} == {"up to date"}


def test_status_tells_what_surely_is_built_from_what_depends_on_content(store: Store, file: Path) -> None:
    run(store, file)
    file.write_text("document\nbinary\n")
    reports = status(store, file)
    assert {label: item.state for label, item in reports.items()} == {
        "read": "to build",
        "count": "to build if an input changes",
        "report": "to build",
    }
    assert reports["read"].why == "the source files changed"
    assert reports["count"].why == "built again if the content of read changes"
    changed = status(store, file, times=2)["count"]
    assert (changed.state, changed.why) == ("to build", "times: 1 -> 2")


def test_status_of_a_pipeline_that_was_never_run(store: Store, file: Path) -> None:
    reports = status(store, file)
    assert {(item.state, item.why) for item in reports.values()} == {("to build", "never built")}
    assert reports["count"].artifact is None


def test_a_file_that_changes_while_it_is_read_is_read_again(store: Store, file: Path) -> None:
    EDITS.append(lambda: file.write_text("changed document\ntoo short\n"))
    documents = run(store, file)["read"]
    assert CALLS == ["read", "read", "count", "report"]
    assert (documents.path / "documents" / "0.txt").read_text() == "changed document"
    assert [path.name for path in store.artifacts.glob("read-*")] == [documents.path.name]
    run(store, file)
    assert CALLS == []


def test_a_change_that_keeps_size_and_time_is_noticed(store: Store, file: Path) -> None:
    def edit() -> None:
        before = file.stat()
        file.write_text("DOCUMENT\ntoo short\n")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    EDITS.append(edit)
    assert (run(store, file)["read"].path / "documents" / "0.txt").read_text() == "DOCUMENT"


def test_a_file_that_never_stops_changing_is_an_error_and_leaves_no_artifact(
    store: Store, file: Path
) -> None:
    EDITS.extend(lambda n=n: file.write_text(f"{n}\ntoo short\n") for n in range(10))  # type: ignore[misc]
    with pytest.raises(InputChangedError, match="changed while"):
        run(store, file)
    assert list(store.artifacts.glob("read-*")) == []


def test_an_input_that_decayed_unnoticed_is_deleted_before_it_is_read(store: Store, file: Path) -> None:
    artifacts = run(store, file)
    content = artifacts["read"].path / "documents" / "0.txt"
    digests = store.digests()
    content.write_text("DOCUMENT")
    sha256 = artifacts["read"].manifest()["files"]["documents/0.txt"]["sha256"]
    digests.keep_file(
        content, content.stat(), 2**62, sha256
    )  # as if neither size, times nor inode had changed
    digests.flush()
    assert verify(artifacts["read"].path, store.digests()) is None
    with pytest.raises(DamagedInputError, match=r"documents/0\.txt does not match its checksum"):
        run(store, file, times=2)
    run(store, file, times=2)
    assert CALLS == ["read", "count", "report"]


def test_status_reads_no_artifact_twice(store: Store, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.core.digests.SETTLE_SECONDS", -1.0)
    run(store, file)
    status(store, file)
    monkeypatch.setattr("groundup.core.digests.sha256_file", lambda path: pytest.fail(f"{path} is hashed"))
    assert {item.state for item in status(store, file).values()} == {"up to date"}


def test_the_manifest_names_content_and_origin_of_every_input(store: Store, file: Path) -> None:
    artifacts = run(store, file)
    manifest = json.loads((artifacts["report"].path / "manifest.json").read_text())
    assert manifest["inputs"] == {
        "documents": artifacts["read"].digest(record=True),
        "letters": artifacts["count"].digest(record=True),
    }
    assert manifest["built_from"]["documents"] == artifacts["read"].path.name
    assert artifacts["count"].manifest()["inputs"] == {"documents": artifacts["read"].digest()}
