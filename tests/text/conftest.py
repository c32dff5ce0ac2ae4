"""A builder for the text stages: real stages, real files, a workspace of their own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groundup.text.curate.curate import Curate
from text_helpers import Built, run_acquire, run_curate

Ingester = Callable[..., Built]


@pytest.fixture
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Ingester:
    def build(*paths: Path | str, **settings: Any) -> Built:
        return run_acquire(tmp_path_factory.mktemp("ingest"), *paths, **settings)

    return build


@pytest.fixture
def curated(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Built]:
    def build(raw: Built, recipe: Curate | None = None) -> Built:
        return run_curate(tmp_path_factory.mktemp("curate"), raw, recipe)

    return build
