"""Seconds that `groundup status` takes on a corpus of many files, the first time and with kept digests.

in:  the number of files and megabytes of the corpus, which is written into a temporary folder
out: JSON: wall and CPU seconds of the whole command, process start and imports included

    .venv/bin/python benchmarks/status.py --files 20000 --megabytes 2000
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from groundup.core.digests import SETTLE_SECONDS

SUBFOLDERS = 100


def write_corpus(folder: Path, files: int, size: int) -> None:
    """`files` text files of about `size` bytes, each with content of its own."""
    for number in range(files):
        path = folder / f"{number % SUBFOLDERS:02d}" / f"{number:06d}.txt"
        path.parent.mkdir(exist_ok=True)
        line = f"Line of document {number}, which no other document has.\n"
        path.write_text(line * max(1, size // len(line)))


def call(corpus: Path, workspace: Path) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Seconds of one call, and the stages that it reports."""
    command = [sys.executable, "-m", "groundup.cli", "status", "--json"]
    command += ["--data", str(corpus), "--workspace", str(workspace)]
    started, before = time.perf_counter(), os.times()
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    after = os.times()
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return {"wall": round(time.perf_counter() - started, 2), "cpu": round(cpu, 2)}, json.loads(done.stdout)


def measure(files: int, size: int) -> dict[str, dict[str, float]]:
    """Seconds by what had changed since the call before."""
    with tempfile.TemporaryDirectory() as folder:
        corpus, workspace = Path(folder) / "corpus", Path(folder) / "workspace"
        corpus.mkdir()
        write_corpus(corpus, files, size)
        time.sleep(SETTLE_SECONDS)  # digests of files that were just written aren't kept
        first, before = call(corpus, workspace)
        second, after = call(corpus, workspace)
        assert after == before, "nothing changed, and the stages differ"
        with (corpus / "00" / "000000.txt").open("a") as file:
            file.write("One more line.\n")
        edited, changed = call(corpus, workspace)
        assert changed[0]["artifact"] != before[0]["artifact"], "a file changed, and the fingerprint did not"
    return {"first": first, "second": second, "one_file_edited": edited}


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--megabytes", type=float, default=1.0)
    options = parser.parse_args()
    figures = measure(options.files, int(options.megabytes * 1e6 / options.files))
    load = os.getloadavg()[0]
    print(
        json.dumps({"files": options.files, "megabytes": options.megabytes, "seconds": figures, "load": load})
    )


if __name__ == "__main__":
    main()
