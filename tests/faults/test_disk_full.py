"""Pretraining on a disk that is full: said in words, the last good state intact, the same bytes once there is room."""

import json
import os
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from training_helpers import SITE, Inputs, build, inputs

pytestmark = pytest.mark.slow

STEPS = 24
DISK = 4 << 20
"""Bytes of the small disk."""
EVERY_STEP, AT_THE_END = 1e-6, 1e6
CASES = (
    (60_000, EVERY_STEP),
    (300_000, EVERY_STEP),
    (520_000, EVERY_STEP),
    (150_000, AT_THE_END),
    (200_000, AT_THE_END),
)
"""Bytes left free on it, and when states are saved: no room for the first state, the second, the third, the last one,
and for that but not for the model beside it."""


def weights(workspace: Path) -> bytes:
    (path,) = (workspace / "artifacts").glob("pretrain-*/model.safetensors")
    return path.read_bytes()


def states(workspace: Path) -> dict[str, dict[str, bytes]]:
    """Every resume state, whole or torn, file by file."""
    found = (workspace / "artifacts").glob("pretrain-*.part/resume/step-*")
    return {state.name: {file.name: file.read_bytes() for file in state.iterdir()} for state in found}


def tried(given: Inputs, disk: Path, room: int, seconds: float) -> dict[str, Any]:
    """Pretrain with `room` bytes left on `disk`, then without the filling; tell what happened."""
    workspace, filling = disk / "workspace", disk / "filling"
    runtime = SITE.model_copy(update={"checkpoint_seconds": seconds})
    with filling.open("wb") as file:
        file.write(bytes(max(0, os.statvfs(disk).f_bavail * 4096 - room)))
    error = ""
    try:
        build(workspace, given, STEPS, runtime)
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    left = states(workspace)
    filling.unlink()
    build(workspace, given, STEPS, runtime)
    return {
        "error": error,
        "states": sorted(left),
        "files": sorted({name for state in left.values() for name in state}),
        "weights": sha256(weights(workspace)).hexdigest(),
    }


def main(folder: Path) -> None:
    """In a namespace of its own: mount a small disk for every case, and try it. The first line is of a calm run."""
    given = inputs(folder / "inputs")
    build(folder / "calm", given, STEPS, SITE.model_copy(update={"checkpoint_seconds": AT_THE_END}))
    print(json.dumps(sha256(weights(folder / "calm")).hexdigest()))
    for number, (room, seconds) in enumerate(CASES):
        disk = folder / f"disk-{number}"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(disk)], check=True)
        print(json.dumps(tried(given, disk, room, seconds)))


def may_mount() -> bool:
    probe = "mount -t tmpfs -o size=4096 none /mnt"
    try:
        return subprocess.run(["unshare", "-rm", "sh", "-c", probe], capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(
    not may_mount(), reason="a small disk needs `unshare -rm` and mount, which aren't permitted here"
)
def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = ["unshare", "-rm", sys.executable, __file__, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
    calm, *found = (json.loads(line) for line in ran.stdout.splitlines())
    assert [one["states"] for one in found] == [
        [], ["step-000000001"], ["step-000000001", "step-000000002"], [], [f"step-{STEPS:09d}"]]  # fmt: skip
    for one, what in zip(found, ["the training state of step"] * 4 + ["pretrain"], strict=True):
        assert one["error"].startswith(f"GroundupError: {what}"), one
        assert "No space left on device" in one["error"] and "Free some space on that disk" in one["error"], (
            one
        )
        needs = re.search(r"it needs ([\d,]+) bytes, and ([\d,]+) bytes are free", one["error"])
        assert (needs is not None) == ("state" in what)
        assert needs is None or int(needs[1].replace(",", "")) > int(needs[2].replace(",", "")) - 4096 * 4
        assert set(one["files"]) in (set(), {"state.safetensors", "state.json", "manifest.json"}), one
        assert one["weights"] == calm


if __name__ == "__main__":
    main(Path(sys.argv[1]))
