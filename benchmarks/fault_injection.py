"""Faults of the operating system at random system calls of every stage: one message, status 2, nothing lost.

in:  a number of points and a seed
out: a JSON file: what every fault led to; status 1 if one led to anything but a message or the undisturbed bytes

    .venv/bin/python benchmarks/fault_injection.py --points 100 --seed 1 --output faults.json

Every stage of a tiny blueprint is run with one worker and with two. strace lists its system calls on files;
one of them, drawn at random, fails with ENOSPC, EACCES or EIO in the next run of the stage (in each process that makes
as many calls of that kind). The run must end with status 2 and one message, or with status 0 and the bytes of an
undisturbed run. Then the same command without a fault must end in those bytes. Runs are forks of this process, which
has imported everything. Needs strace, and the permission to trace.
"""

import argparse
import importlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from groundup import options, run, show  # noqa: F401  (imported once, for all forks)
from groundup.cli import main as groundup
from groundup.core.store import CONTENT
from groundup.text import executor

CALLS = ("write", "pwrite64", "writev", "read", "pread64", "openat", "fsync", "rename", "mkdir", "mmap", "unlink",
         "rmdir", "symlink", "ftruncate", "flock", "chmod", "newfstatat", "getdents64")  # fmt: skip
ERRORS = ("ENOSPC", "EACCES", "EIO")
SECONDS = 240.0
"""Time after which a run counts as hanging."""
SETTINGS = (
    "curate.steps.length.min_chars=1", "tokenizer.vocab_size=320", "tokenize.seq_len=256",
    "tokenize.validation_share=0.2", "pretrain.depth=1", "pretrain.architecture.d_model=32",
    "pretrain.architecture.n_heads=2", "pretrain.tokens=4096",
    "pretrain.batch_tokens=2048", "align.finetune.batch_rows=2",
    "align.finetune.max_tokens=3000", "align.reward.batch_rows=4", "align.reward.other=16",
    "align.reward.truncated=8", "align.reward.garbled=8", "align.reward.sampled=8", "align.reward.held_out=8",
    "align.reward.max_new_tokens=8", "align.align.iterations=1", "align.align.rollout_batch_size=8",
    "align.align.held_out=8", "align.align.max_new_tokens=8", "evaluate.examples=8", "evaluate.max_new_tokens=8",
    "runtime.compile=off", "runtime.threads=1", "runtime.checkpoint_seconds=0.2",
)  # fmt: skip
THINGS = ("apple", "bridge", "candle", "door", "engine", "forest", "garden", "harbor", "island", "jacket")


@dataclass(frozen=True)
class Fault:
    """The system call that fails."""

    stage: str
    workers: int
    call: str
    error: str
    number: int
    """its number among the calls of this name in its process"""
    line: str


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    status: int | str
    stderr: str
    seconds: float


def write_corpus(folder: Path) -> None:
    """A few dozen documents: source code, Markdown and HTML."""
    folder.mkdir(parents=True)
    for number in range(24):
        thing = THINGS[number % len(THINGS)]
        functions = "\n\n".join(
            f'def {verb}_{thing}(value, limit={at}):\n    """Return how the {thing} {verb}s the value number {number}, '
            f'up to the limit."""\n    return value + limit\n'
            for at, verb in enumerate(("open", "read", "write"))
        )
        (folder / f"module_{number}.py").write_text(
            f'"""Tools for the {thing} number {number}."""\n\n\n{functions}'
        )
    for number in range(8):
        thing = THINGS[number]
        text = (
            f"A {thing} is a thing which people in the town use every day. The {thing} works slowly in the morning, "
            "and then it rests until the evening comes and the work begins again."
        )
        (folder / f"page_{number}.md").write_text(f"# The {thing} number {number}\n\n{text}\n")
        (folder / f"page_{number}.html").write_text(f"<!doctype html><html><body><p>{text}</p></body></html>")


class Bench:
    """The folders, and the undisturbed runs."""

    def __init__(self, folder: Path, ranks: int) -> None:
        self.folder, self.corpus, self.ranks = folder, folder / "corpus", ranks
        if not self.corpus.exists():
            write_corpus(self.corpus)
        self.stages: dict[int, dict[str, str]] = {}
        """workers -> stage -> artifact of the undisturbed run, in the order of the pipeline"""
        self.calls: dict[tuple[str, int], list[Fault]] = {}

    def prepare(self, workers: int) -> None:
        """Run everything once without a fault."""
        record = self.folder / f"calm-{workers}" / "runs" / "corpus.json"
        if not record.exists():
            ended = self.command(self.folder / f"calm-{workers}", "", workers)
            assert ended.status == 0, ended.stderr
            shutil.copy(self.folder / "tmp" / "modules", self.folder / "modules")
        for module in (self.folder / "modules").read_text().split():
            with suppress(Exception):  # imported once, for all forks
                importlib.import_module(module)
        self.stages[workers] = json.loads(record.read_text())["stages"]

    def up_to(self, stage: str, workers: int) -> list[str]:
        """The artifacts of the undisturbed run up to a stage."""
        stages = self.stages[workers]
        return [stages[before] for before in list(stages)[: list(stages).index(stage) + 1]]

    def workspace(self, stage: str, workers: int) -> Path:
        """A new workspace that holds the artifacts of the stages before `stage`."""
        workspace = self.folder / "workspace"
        shutil.rmtree(workspace, ignore_errors=True)
        for name in self.up_to(stage, workers)[:-1]:
            shutil.copytree(
                self.folder / f"calm-{workers}" / "artifacts" / name, workspace / "artifacts" / name
            )
        return workspace

    def command(self, workspace: Path, stage: str, workers: int, *strace: str) -> Ended:
        """Run up to a stage in a fork of this process, traced if arguments of strace are given."""
        words = ["run", "--data", str(self.corpus), "--workspace", str(workspace)]
        if stage not in ("", "book"):  # the book ends the run with its record
            words += ["--until", stage]
        for setting in (*SETTINGS, f"runtime.workers={workers}", f"runtime.ranks={self.ranks}"):
            words += ["--set", setting]
        said = self.folder / "stderr"
        began = time.monotonic()
        ready, go = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(go)
            _child(words, said, self.folder / "tmp", ready)
        os.close(ready)
        tracer = _attach(process, *strace) if strace else None
        os.write(go, b"x")
        os.close(go)
        status = _wait(process)
        if tracer is not None:
            tracer.wait()
        return Ended(status, said.read_text(errors="replace"), round(time.monotonic() - began, 1))

    def list_calls(self, stage: str, workers: int) -> list[Fault]:
        """The system calls of a stage on files of the workspace, the corpus and the temporary folders."""
        if (stage, workers) not in self.calls:
            log = self.folder / "log"
            strace = ("-y", "-e", f"trace={','.join(CALLS)}", "-o", str(log))
            ended = self.command(self.workspace(stage, workers), stage, workers, *strace)
            assert ended.status == 0, ended.stderr
            self.calls[stage, workers] = _calls(log, self.folder, stage, workers)
        return self.calls[stage, workers]

    def try_fault(self, fault: Fault) -> dict[str, Any]:
        """Run with the fault, then without; what happened."""
        workspace = self.workspace(fault.stage, fault.workers)
        injected = f"inject={fault.call}:error={fault.error}:when={fault.number}"
        strace = ("-e", f"trace={fault.call}", "-e", injected, "-o", os.devnull)
        hit = self.command(workspace, fault.stage, fault.workers, *strace)
        problem = _problem(hit)
        if not problem and hit.status == 0:
            problem = self.difference(workspace, fault)
        again = hit
        if problem or hit.status != 0:
            again = self.command(workspace, fault.stage, fault.workers)
            if not problem and again.status != 0:
                problem = "the same command without the fault failed"
            problem = problem or self.difference(workspace, fault)
        message = next((line for line in hit.stderr.splitlines() if line.startswith("groundup: ")), "")
        return asdict(fault) | {
            "status": hit.status, "message": message, "problem": problem, "seconds": [hit.seconds, again.seconds],
            "stderr": hit.stderr[-3000:] + again.stderr[-3000:] if problem else "",
        }  # fmt: skip

    def difference(self, workspace: Path, fault: Fault) -> str:
        """The first stage whose artifact or content differs from the undisturbed run."""
        for name in self.up_to(fault.stage, fault.workers):
            ours, calm = (
                _content(folder / "artifacts" / name)
                for folder in (workspace, self.folder / f"calm-{fault.workers}")
            )
            if ours != calm:
                return f"{name} differs from the undisturbed run" if ours else f"{name} is missing"
        return ""


def _content(artifact: Path) -> Any:
    """Checksums of what later stages compute with; of scores and the book, which hold times, the names of files."""
    try:
        manifest = json.loads((artifact / "manifest.json").read_text())
    except FileNotFoundError:
        return None
    return manifest["content"] if manifest["kind"] in CONTENT else sorted(manifest["files"])


def _child(words: list[str], stderr: Path, temporary: Path, ready: int) -> None:
    """The forked process: waits for the tracer, then runs the command and leaves as it does."""
    os.setsid()
    temporary.mkdir(exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    executor.SMALL_BYTES = 0
    handle = os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    os.read(ready, 1)
    try:
        groundup(words)
    finally:
        with suppress(OSError):
            (temporary / "modules").write_text("\n".join(sys.modules))


def _attach(process: int, *arguments: str) -> subprocess.Popen[bytes]:
    tracer = subprocess.Popen(
        ["strace", "-f", "-qq", *arguments, "-p", str(process)], stderr=subprocess.DEVNULL
    )
    while "TracerPid:\t0\n" in Path(f"/proc/{process}/status").read_text():
        if tracer.poll() is not None:
            os.kill(process, signal.SIGKILL)
            raise SystemExit("strace can't trace a process here: it needs the capability SYS_PTRACE")
        time.sleep(0.01)
    return tracer


def _wait(process: int) -> int | str:
    """Status of a process, or what ended it; its process group is killed where it hangs."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else signal.Signals(-code).name
        time.sleep(0.02)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return "hangs"


def _calls(log: Path, folder: Path, stage: str, workers: int) -> list[Fault]:
    found, numbers = [], Counter[tuple[str, str]]()
    for line in log.read_text(errors="replace").splitlines():
        match = re.match(r"(\d+) +(\w+)\(", line)
        if match:
            numbers[match[1], match[2]] += 1
            mine = any(text in line for text in (f"{folder}/", "/dev/shm")) and f"{folder}/stderr" not in line
            if mine:
                number = numbers[match[1], match[2]]
                found.append(Fault(stage, workers, match[2], "", number, line[len(match[1]) :].strip()[:200]))
    return found


def _problem(ended: Ended) -> str:
    messages = [line for line in ended.stderr.splitlines() if line.startswith("groundup: ")]
    if "Traceback" in ended.stderr:
        return "a traceback"
    if ended.status not in (0, 2):
        return f"status {ended.status}"
    return f"{len(messages)} messages" if len(messages) != (ended.status == 2) else ""


def draw(bench: Bench, stages: list[str], chance: random.Random) -> Fault:
    """A random stage, number of workers, kind of call, and call."""
    workers = chance.choice(list(bench.stages))
    calls = bench.list_calls(chance.choice(stages or list(bench.stages[workers])), workers)
    call = chance.choice(sorted({fault.call for fault in calls}))
    fault = chance.choice([fault for fault in calls if fault.call == call])
    return Fault(fault.stage, fault.workers, call, chance.choice(ERRORS), fault.number, fault.line)


def main() -> None:
    """Write the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of workers")
    parser.add_argument("--ranks", type=int, default=1, help="ranks of a training")
    parser.add_argument("--stages", nargs="+", default=[], help="stages that get faults (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("faults.json"), help="written after every point")
    parser.add_argument(
        "--folder",
        type=Path,
        help="folder of the runs, whose undisturbed runs are used again (default: a temporary one)",
    )
    arguments = parser.parse_args()
    if shutil.which("strace") is None:
        raise SystemExit(
            "strace is not installed, and nothing else makes system calls fail. apt-get install strace"
        )
    chance, folder = (
        random.Random(arguments.seed),
        arguments.folder or Path(tempfile.mkdtemp(prefix="faults-")),
    )
    bench, results = Bench(folder.absolute(), arguments.ranks), []
    for workers in arguments.workers:
        bench.prepare(workers)
    for number in range(arguments.points):
        results.append(bench.try_fault(draw(bench, arguments.stages, chance)))
        last = results[-1]
        arguments.output.write_text(json.dumps(_figures(arguments.seed, results), indent=1))
        print(number + 1, last["stage"], last["workers"], last["call"], last["error"], last["status"],
              last["problem"] or "ok", last["seconds"], last["message"][:150], file=sys.stderr, flush=True)  # fmt: skip
    if not arguments.folder:
        shutil.rmtree(folder)
    raise SystemExit(any(result["problem"] for result in results))


def _figures(seed: int, results: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "seed": seed,
        "points": len(results),
        "status": Counter(str(result["status"]) for result in results),
        "calls": Counter(result["call"] for result in results),
        "stages": Counter(result["stage"] for result in results),
        "problems": sum(bool(result["problem"]) for result in results),
        "results": results,
    }


if __name__ == "__main__":
    main()
