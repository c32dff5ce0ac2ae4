"""The benchmark of `groundup status`, at a size of seconds."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "status.py"


def test_the_second_status_reads_no_corpus_and_imports_no_torch() -> None:
    command = [sys.executable, str(BENCHMARK), "--files", "20", "--megabytes", "0.1"]
    figures = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert figures["files"] == 20
    assert figures["seconds"]["second"]["cpu"] < figures["seconds"]["first"]["cpu"] / 2
