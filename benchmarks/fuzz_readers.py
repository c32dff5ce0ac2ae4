"""Fuzzing of the readers: batches of mutated files through `groundup run --until ingest`, with one worker and with two.

in:  minutes, a seed; with --batch, one batch again
out: JSON lines: a line per fault, whose batch is kept in WORK/faults; then files, formats, reasons and faults in all

A batch has no fault if the command ends with 0, or with 2 and a message; if every file has documents, or an entry in
the rejects log that names it with a reason; if formats with checksums lose no document without an entry; if no process
takes more than the memory limit or the batch more than the time limit; and if both numbers of workers give the same
bytes.

    .venv/bin/python benchmarks/fuzz_readers.py WORK --minutes 30 --seed 1
"""

import argparse
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from fuzz_mutations import bomb, mutated
from fuzz_seeds import NAMES, Seeds

from groundup.text.documents import read_documents, read_rejects_log

FILES, BOMB_CHANCE = 250, 0.5
MEMORY, SECONDS = 2 << 30, 240
PROGRAM = """
import sys, importlib
from groundup.text import executor
importlib.import_module("groundup.text.ingest.ingest").SHARD_BYTES = 1 << 20
executor.SMALL_BYTES = 0
from groundup.cli import main
main(sys.argv[1:])
"""
"""The product with small shards, which two workers share even in a small batch."""
UNEXPECTED = ("reader_failed", "reader_died", "out_of_memory")
"""Reasons that account for a file but are worth a look."""
_MARKER = re.compile(r"marker\d{5}x")
_PANIC = re.compile(
    r"Traceback|panicked|Segmentation|Aborted|terminate called|Fatal Python error|Exception ignored"
)


@dataclass
class Totals:
    """What has been read so far."""

    batches: int = 0
    files: int = 0
    peak: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    unexpected: Counter[str] = field(default_factory=Counter)
    faults: int = 0


@dataclass(frozen=True)
class Ended:
    """One run of the command."""

    code: int
    messages: str
    peak: int
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, default=-1, help="only this one; its files stay")
    arguments = parser.parse_args()
    end, totals, number = time.monotonic() + 60 * arguments.minutes, Totals(), max(arguments.batch, 0)
    started = time.strftime("%Y-%m-%d %H:%M")
    while time.monotonic() < end:
        for fault in run_batch(arguments.work, arguments.seed, number, totals):
            totals.faults += 1
            print(json.dumps({"seed": arguments.seed, "batch": number, "fault": fault}), flush=True)
        number += 1
        if arguments.batch >= 0:
            break
    result = {"seed": arguments.seed, "started": started, "minutes": arguments.minutes, **vars(totals)}
    print(json.dumps(result, indent=1), flush=True)


def run_batch(work: Path, seed: int, number: int, totals: Totals) -> list[str]:
    """The faults of one batch."""
    draw = random.Random(f"{seed}-{number}")
    folder = work / f"batch-{seed}-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    kept = write_files(folder / "in", draw, totals)
    blueprint = folder / "fuzz.toml"
    blueprint.write_text(settings(draw, folder / "in"))
    faults: list[str] = []
    for workers in (1, 2):
        ended = run(blueprint, folder / str(workers), workers)
        totals.peak = max(totals.peak, ended.peak)
        faults += [
            f"{workers} workers: {fault}" for fault in judged(ended, folder, str(workers), kept, totals)
        ]
    faults += list(differences(folder / "1", folder / "2"))
    totals.batches += 1
    if faults:
        (work / "faults").mkdir(exist_ok=True)
        shutil.rmtree(work / "faults" / folder.name, ignore_errors=True)
        folder.rename(work / "faults" / folder.name)
    else:
        shutil.rmtree(folder)
    return faults


def write_files(folder: Path, draw: random.Random, totals: Totals) -> dict[str, int]:
    """Mutated files in a few folders; for each printed path the number of documents it can't lose silently."""
    seeds, kept = Seeds(draw), {}
    count = FILES if draw.random() < 0.9 else draw.randint(1, 6)
    for number in range(count):
        is_bomb = number == 0 and draw.random() < BOMB_CHANCE
        seed = bomb(draw) if is_bomb else mutated(seeds.any(), draw, seeds)
        below = folder / draw.choice(("", "", "sub", "[odd] {name}", "a.zip", "x/y/z"))
        below.mkdir(parents=True, exist_ok=True)
        name = f"{number:03d}.{seed.suffix}".encode()
        if draw.random() < 0.1:
            name = draw.choice(NAMES).replace(b"{}", f"{number:03d}.{seed.suffix}".encode())
        path = below / os.fsdecode(name)
        path.write_bytes(seed.data)
        kept[str(path.relative_to(folder))] = seed.documents
        totals.files += 1
        totals.formats[("bomb " if is_bomb else "") + (seed.suffix or "none")] += 1
    return kept


def settings(draw: random.Random, data: Path) -> str:
    """A blueprint that reads the folder, mostly with the defaults."""
    lines = ["[ingest]"] + ["max_document_bytes = 2000"] * (draw.random() < 0.2)
    lines += ["[[ingest.sources]]", 'use = "files"', f"paths = [{json.dumps(str(data))}]"]
    lines += ['extractor = "trafilatura"'] * (draw.random() < 0.1)
    separator = draw.choice(("blank-lines", "headings", "", "the", "\n\n\n"))
    lines += [f"separator = {json.dumps(separator)}"] * (draw.random() < 0.2)
    lines += ['fields = {text = "meta.text", language = "n"}'] * (draw.random() < 0.05)
    return "\n".join(lines) + "\n"


def run(blueprint: Path, workspace: Path, workers: int) -> Ended:
    """The command under the limits, in a session of its own."""
    command = [sys.executable, "-c", PROGRAM, "run", str(blueprint), "--until", "ingest", "--quiet"]
    command += ["--workspace", str(workspace), "--set", f"runtime.workers={workers}"]
    messages = workspace.with_suffix(".stderr")
    started = time.monotonic()
    with messages.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=out,
            preexec_fn=_limited,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
        )
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            time.sleep(0.05)
            if time.monotonic() > started + SECONDS:
                os.killpg(process.pid, 9)
    process.returncode = os.waitstatus_to_exitcode(ended[1])
    text = messages.read_text(errors="replace")
    return Ended(process.returncode, text, ended[2].ru_maxrss << 10, time.monotonic() - started)


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def judged(ended: Ended, folder: Path, name: str, kept: dict[str, int], totals: Totals) -> Iterator[str]:
    """The faults of one run."""
    if ended.seconds > SECONDS:
        yield f"takes more than {SECONDS} seconds"
        return
    if (
        ended.code not in (0, 2)
        or _PANIC.search(ended.messages)
        or (ended.code == 2 and not ended.messages.strip())
    ):
        yield f"ends with {ended.code}: {ended.messages[-600:]}"
        return
    if ended.peak > MEMORY:
        yield f"takes {ended.peak} bytes"
    artifact = next((folder / name / "artifacts").glob("ingest-*"), None)
    if ended.code == 2:
        path = folder / name / "rejects" / "ingest.jsonl"
        entries = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        yield from unaccounted(kept, [], entries)
    elif artifact is None:
        yield "no artifact"
    else:
        entries = [vars_of(entry) for entry in read_rejects_log(artifact)]
        lines = [json.loads(line) for line in (artifact / "sources.jsonl").read_text().splitlines()]
        yield from unaccounted(kept, lines, entries)
        yield from silent(kept, artifact, entries, lines)
        if name == "1":
            totals.reasons.update(entry["reason"] for entry in entries)
    for entry in entries if name == "1" else ():
        if entry["reason"] in UNEXPECTED:
            totals.unexpected[f"{entry['reason']}: {entry['detail'][:150]}"] += 1
            print(json.dumps({"unexpected": entry["reason"], "path": entry["path"], "in": folder.name,
                              "detail": entry["detail"]}), flush=True)  # fmt: skip


def vars_of(entry: Any) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in ("path", "outcome", "reason", "detail")}


def unaccounted(
    kept: dict[str, int], lines: list[dict[str, Any]], entries: list[dict[str, Any]]
) -> Iterator[str]:
    """Files without documents and without an entry; paths are compared where they are UTF-8."""
    with_documents = {line["path"] for line in lines if line["documents"]}
    named = {entry["path"] for entry in entries if entry["reason"]}
    every = with_documents | named | {path.rpartition("#")[0] for path in named}
    plain = {path for path in kept if path.isprintable() and "\\x" not in path}
    for path in sorted(plain - every):
        yield f"{path!r} has neither documents nor an entry"
    if lines and len({line["path"] for line in lines}) != len(kept):
        yield f"{len(lines)} lines for {len(kept)} files"
    for line in lines:
        if line["path"] not in every:
            yield f"{line['path']!r} has neither documents nor an entry"


def silent(
    kept: dict[str, int], artifact: Path, entries: list[dict[str, Any]], lines: list[dict[str, Any]]
) -> Iterator[str]:
    """Files with checksums whose markers aren't all read, without an entry; documents that are counted wrongly."""
    documents = list(read_documents(artifact))
    if len(documents) != sum(line["documents"] for line in lines):
        yield f"{len(documents)} documents, counted as {sum(line['documents'] for line in lines)}"
    named = {entry["path"].rpartition("#")[0] or entry["path"] for entry in entries} | {
        entry["path"] for entry in entries
    }
    markers: dict[str, set[str]] = {}
    for document in documents:
        path = document.path
        for each in (path, path.rpartition("#")[0], path.rpartition("#")[0].rpartition("#")[0]):
            markers.setdefault(each, set()).update(_MARKER.findall(document.text))
    for path, count in kept.items():
        found = len(markers.get(path, ()))
        if found < count and path not in named and path.isprintable() and "\\x" not in path:
            yield f"{path!r}: {found} of {count} documents, without an entry"


def differences(one: Path, two: Path) -> Iterator[str]:
    """Files of the artifact that differ between the numbers of workers."""
    ones, twos = (next((each / "artifacts").glob("ingest-*[0-9a-f]"), None) for each in (one, two))
    if ones is None or twos is None:
        if ones is not twos:
            yield "an artifact with one number of workers only"
        return
    for path in sorted(ones.rglob("*")):
        twin, compared = (
            twos / path.relative_to(ones),
            path.suffix in (".parquet", ".jsonl") and path.name != "log.jsonl",
        )
        if compared and not (twin.exists() and path.read_bytes() == twin.read_bytes()):
            yield f"{path.name} differs with two workers"


if __name__ == "__main__":
    main()
