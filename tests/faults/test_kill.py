"""kill -9 of the whole process tree at any moment: the same command finishes, in the same bytes."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tiny import OVERRIDES, corpus, killed, read_json

KILLS = 5


def command(folder: Path, workspace: Path) -> list[str]:
    sets = [
        part
        for override in (
            *OVERRIDES,
            "runtime.checkpoint_seconds=0.2",
            "runtime.compile=off",
            "runtime.threads=1",
        )
        for part in ("--set", override)
    ]
    return [
        sys.executable,
        "-m",
        "groundup.cli",
        "run",
        "--data",
        str(folder),
        "--workspace",
        str(workspace),
        *sets,
    ]


def weights(workspace: Path, name: str) -> dict[str, str]:
    """The sha256 of every weight file that a run published, by stage and file."""
    stages = read_json(workspace / "runs" / f"{name}.json")["stages"]
    found = {}
    for label, folder in stages.items():
        for file, said in read_json(workspace / "artifacts" / folder / "manifest.json")["files"].items():
            if file.endswith((".safetensors", ".npy", "tokenizer.json", ".parquet")):
                found[f"{label}/{file}"] = said["sha256"]
    return found


@pytest.mark.cluster
def test_a_run_killed_at_random_moments_ends_in_the_same_bytes(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "tiny")
    started = time.monotonic()
    subprocess.run(command(folder, tmp_path / "calm"), check=True, capture_output=True)
    seconds = time.monotonic() - started
    seed = random.randrange(10**6)
    print(f"reproduce with seed {seed}")
    chance = random.Random(seed)
    for _ in range(KILLS):
        killed(command(folder, tmp_path / "rough"), chance.uniform(0.2, 0.5 * seconds))
    subprocess.run(command(folder, tmp_path / "rough"), check=True, capture_output=True)
    calm = weights(tmp_path / "calm", "tiny")
    assert len([name for name in calm if name.endswith(".safetensors")]) >= 4
    assert weights(tmp_path / "rough", "tiny") == calm
