"""A Ray cluster of two nodes: the same bytes as on one machine, also when a worker dies."""

import os
import signal
from pathlib import Path

import pytest
from pydantic import Field

from groundup.core.recipe import Recipe
from groundup.core.runtime import Runtime
from groundup.text.batch import DocumentBatch
from groundup.text.curate.curate import Curate
from groundup.text.curate.steps.length import Length
from groundup.text.curate.types import FilterResult
from text_helpers import crowd, run_acquire, run_curate

# What a killed process leaves open is closed when its objects are collected.
pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore")]


class Deadly(Recipe):
    """A step that kills its worker, once."""

    flag: str = Field(default="", description="the file that says that it is still to be done")

    def apply(self, batch: DocumentBatch) -> FilterResult:
        flag = Path(self.flag)
        if batch.rows and flag.exists():
            flag.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        none = [None] * batch.rows
        return FilterResult(none, none, none)


def test_a_cluster_gives_the_same_bytes_and_a_killed_worker_loses_nothing(
    ray_cluster: str, tmp_path: Path
) -> None:
    folder, flag = crowd(tmp_path / "pages"), tmp_path / "kill"
    recipe = Curate(steps=(Length(), Deadly(flag=str(flag))))
    here = run_acquire(tmp_path / "a" / "ingest-here", folder, max_document_bytes=8192)
    kept = run_curate(tmp_path / "a" / "curate-here", here, recipe)
    runtime = Runtime(ray=ray_cluster)
    there = run_acquire(tmp_path / "b" / "ingest-there", folder, max_document_bytes=8192, runtime=runtime)
    assert there.files() == here.files()
    flag.touch()
    kept_there = run_curate(tmp_path / "b" / "curate-there", there, recipe, runtime=runtime)
    assert not flag.exists(), "the worker was killed"
    assert kept_there.files() == kept.files()
