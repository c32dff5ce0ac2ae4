"""kill -9 of ingest and curate at any moment: the same command ends in the same bytes; what is done stays done."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from text_helpers import crowd
from tiny import killed, read_json

KILLS = 10


def command(folder: Path, workspace: Path) -> list[str]:
    return [sys.executable, "-m", "groundup.cli", "run", "--data", str(folder), "--workspace", str(workspace),
            "--until", "curate", "--set", "ingest.max_document_bytes=8192"]  # fmt: skip


def published(workspace: Path) -> dict[str, str]:
    """The sha256 of every file of both stages."""
    folders = sorted((workspace / "artifacts").glob("*/manifest.json"))
    files = {f"{path.parent.name}/{name}": said["sha256"]
             for path in folders for name, said in read_json(path)["files"].items()}  # fmt: skip
    assert any("/rejects/" in name for name in files)
    return files


def done(workspace: Path) -> dict[str, int]:
    """When each task of a stage under way was noted as done."""
    marks = (workspace / "artifacts").glob("*.part/resume/*/*.json")
    return {str(mark): mark.stat().st_mtime_ns for mark in marks if "shards" not in mark.parent.name}


@pytest.mark.cluster
def test_killed_at_ten_random_moments_documents_and_rejects_log_are_the_same(tmp_path: Path) -> None:
    folder = crowd(tmp_path / "pages")
    started = time.monotonic()
    subprocess.run(command(folder, tmp_path / "calm"), check=True, capture_output=True)
    seconds = time.monotonic() - started
    seed = random.randrange(10**6)
    print(f"reproduce with seed {seed}; a calm run takes {seconds:.1f} s")
    chance, before = random.Random(seed), dict[str, int]()
    for _ in range(KILLS):
        killed(command(folder, tmp_path / "rough"), chance.uniform(0.3, 0.4 * seconds))
        now = done(tmp_path / "rough")
        repeated = [mark for mark in before.keys() & now.keys() if before[mark] != now[mark]]
        assert not repeated, f"done before the kill, and done again: {repeated}"
        before = now
    subprocess.run(command(folder, tmp_path / "rough"), check=True, capture_output=True)
    assert published(tmp_path / "rough") == published(tmp_path / "calm")
