"""What every test may use: a store in a temporary folder, a quiet place to work, shared data, Ray, where they are."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from groundup.core.progress import Reporter
from groundup.core.stage import StageContext
from groundup.core.store import Store

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "workspace")


@pytest.fixture
def work(tmp_path: Path) -> StageContext:
    return StageContext(tmp_path / "work", Reporter(quiet=True))


@pytest.fixture
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared data folder, looked for it at {SHARED}")
    return SHARED


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[str]:
    """The address of two nodes of Ray with one CPU each."""
    utils = pytest.importorskip(
        "ray.cluster_utils", reason="Ray isn't installed: pip install 'groundup[ray]'"
    )
    nodes = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    yield nodes.address
    nodes.shutdown()
