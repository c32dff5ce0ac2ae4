"""The benchmark of faults: which system calls it chooses from a log of strace, and what it calls a problem."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "fault_injection.py"
LOG = """\
10    openat(AT_FDCWD</w>, "/usr/lib/a.py", O_RDONLY) = 3</usr/lib/a.py>
10    openat(AT_FDCWD</w>, "/bench/workspace/x", O_RDONLY) = 3</bench/workspace/x>
11    write(4</bench/workspace/y>, "abc", 3 <unfinished ...>
10    write(2</bench/stderr>, "abc", 3) = 3
11    <... write resumed>) = 3
11    write(4</bench/workspace/y>, "abc", 3) = 3
10    fsync(3</dev/shm/z>) = 0
"""


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fault_injection", BENCHMARK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fault_injection"] = module  # its dataclasses look it up
    spec.loader.exec_module(module)
    return module


def test_calls_on_own_files_are_numbered_by_process_and_name(benchmark: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(LOG)
    found = benchmark._calls(log, Path("/bench"), "ingest", 2)
    assert [(fault.call, fault.number) for fault in found] == [
        ("openat", 2),
        ("write", 1),
        ("write", 2),
        ("fsync", 1),
    ]


@pytest.mark.parametrize(
    ("status", "stderr", "problem"),
    [
        (2, "groundup: No space left on device\n", ""),
        (0, "[1/2] ingest\n", ""),
        (2, "groundup: a\ngroundup: b\n", "2 messages"),
        (2, "", "0 messages"),
        (2, "Traceback (most recent call last):\ngroundup: a\n", "a traceback"),
        (1, "groundup: a\n", "status 1"),
        ("SIGABRT", "groundup: a\n", "status SIGABRT"),
    ],
)
def test_anything_but_one_message_is_a_problem(
    status: int | str, stderr: str, problem: str, benchmark: ModuleType
) -> None:
    assert benchmark._problem(benchmark.Ended(status, stderr, 1.0)) == problem
