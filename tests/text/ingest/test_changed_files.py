"""Files that change between their fingerprint and their reading: what is published is what was fingerprinted."""

from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.core.builder import Builder
from groundup.core.digests import DigestCache
from groundup.core.progress import Reporter
from groundup.core.recipe import Recipe
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, Inputs, Metrics, Stage, StageContext
from groundup.core.store import Store
from groundup.text.documents import read_documents
from groundup.text.ingest.ingest import Ingest, external_digest, ingest
from groundup.text.ingest.sources.files import Files

SITE = Runtime(workers=1)
OLD, NEW = "The old text of the lighthouse keeper.\n", "The new text of the lighthouse keeper.\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "texts"
    path.mkdir()
    (path / "a.txt").write_text(OLD)
    (path / "b.txt").write_text("Another text that never changes.\n")
    return path


def built(store: Store, folder: Path, *edits: Callable[[], None]) -> tuple[Artifact, int]:
    """The artifact, and how often ingest ran. `edits`: called one before each run, then one after it."""
    runs, waiting = [], list(edits)

    def runner(
        stage: Stage[...], recipe: Recipe, runtime: Runtime, context: StageContext, inputs: Inputs
    ) -> Metrics:
        runs.append(1)
        if waiting:
            waiting.pop(0)()
        metrics = stage(recipe, runtime, context, **inputs)
        if waiting:
            waiting.pop(0)()
        return metrics

    builder = Builder(store, SITE, Reporter(quiet=True), runner=runner)
    return builder(ingest, Ingest(sources=(Files(paths=(str(folder),)),))), len(runs)


def texts(artifact: Artifact) -> dict[str, str]:
    return {document.path: document.text for document in read_documents(artifact.path)}


def test_a_file_that_changed_before_it_was_read_is_read_under_its_new_fingerprint(
    store: Store, folder: Path
) -> None:
    changed, runs = built(store, folder, lambda: (folder / "a.txt").write_text(NEW))  # type: ignore[arg-type,func-returns-value]
    assert runs == 2 and texts(changed)["a.txt"] == NEW
    assert built(store, folder) == (changed, 0)
    assert len(list(store.artifacts.iterdir())) == 1


def test_a_file_that_changed_back_after_it_was_read_is_read_again(store: Store, folder: Path) -> None:
    file = folder / "a.txt"
    artifact, runs = built(store, folder, lambda: file.write_text(NEW), lambda: file.write_text(OLD))  # type: ignore[arg-type,func-returns-value]
    assert runs == 2 and texts(artifact)["a.txt"] == OLD


def test_a_file_that_appears_while_others_are_read_is_read_too(store: Store, folder: Path) -> None:
    late = folder / "c.txt"
    artifact, runs = built(store, folder, lambda: None, lambda: late.write_text(NEW))  # type: ignore[arg-type,func-returns-value]
    assert runs == 2 and texts(artifact)["c.txt"] == NEW


def test_kept_digests_give_the_same_fingerprint(store: Store, folder: Path, tmp_path: Path) -> None:
    recipe = Ingest(sources=(Files(paths=(str(folder),)),))
    cache = DigestCache(tmp_path / "digests.sqlite")
    assert external_digest(recipe, cache) == external_digest(recipe, cache) == external_digest(recipe)
