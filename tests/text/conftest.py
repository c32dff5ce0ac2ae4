"""A builder for the text stages: real stages, real files, a workspace of their own."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from groundup.core.progress import Reporter
from groundup.core.recipe import Site
from groundup.core.stage import Artifact, Work
from groundup.text.acquire import Acquire, acquire
from groundup.text.curate import Curate, curate
from groundup.text.documents import LedgerEntry, read_documents, read_ledger
from groundup.text.sources.files import Files


@dataclass(frozen=True)
class Built:
    """One stage's folder and figures."""

    path: Path
    metrics: dict[str, Any]

    @property
    def artifact(self) -> Artifact:
        return Artifact(self.path, "0" * 64, "text")

    def texts(self) -> dict[str, str]:
        return {document.path: document.text for document in read_documents(self.path)}

    def ids(self) -> dict[str, str]:
        return {document.path: document.id for document in read_documents(self.path)}

    def ledger(self) -> list[LedgerEntry]:
        return list(read_ledger(self.path))

    def reasons(self) -> dict[str, str]:
        return {entry.path: entry.reason for entry in self.ledger()}


Acquirer = Callable[..., Built]


@pytest.fixture
def acquired(tmp_path_factory: pytest.TempPathFactory) -> Acquirer:
    def build(*paths: Path | str, max_document_bytes: int = 4 << 20, **settings: Any) -> Built:
        source = Files(paths=tuple(map(str, paths)), **settings)
        recipe = Acquire(sources=(source,), max_document_bytes=max_document_bytes)
        folder = tmp_path_factory.mktemp("acquire")
        return Built(folder, acquire(recipe, Site(), Work(folder, Reporter(quiet=True))))

    return build


@pytest.fixture
def curated(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Built]:
    def build(raw: Built, recipe: Curate | None = None) -> Built:
        folder = tmp_path_factory.mktemp("curate")
        work = Work(folder, Reporter(quiet=True))
        return Built(folder, curate(recipe or Curate(), Site(), work, raw.artifact))

    return build
