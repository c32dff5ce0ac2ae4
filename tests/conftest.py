"""What every test may use: a store in a temporary folder, a quiet place to work, the shared data if present."""

from pathlib import Path

import pytest

from groundup.core.progress import Reporter
from groundup.core.stage import Work
from groundup.core.store import Store

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "workspace")


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work", Reporter(quiet=True))


@pytest.fixture
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared data folder, looked for it at {SHARED}")
    return SHARED
