"""Crafted input takes bounded memory and time: each case runs in a process with 2 GB of address space."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from format_helpers import read, reasons
from groundup.text.ingest.formats import plain

MEMORY = 2 << 30
PEAK_MB = 800
"""Above what the process takes before it reads, which includes the input itself."""
SECONDS = 20
"""Of a CPU: a busy machine changes nothing."""

CASES = {
    "tags.html": 'b"<p>text</p>" + b"<b>x</b>" * 1_500_000',
    "unclosed.html": 'b"<html><body>" + b"<p>" * 4_000_000',
    "just-below.html": 'b"<html><body>" + b"<p>word" * 240_000',
    "open.html": 'b"<html>" + b"<i>" * 13_000_000',
    "attributes.html": 'b"<html><body><p " + b" a=b" * 10_000_000 + b">x</p>"',
    "select.html": 'b"<html><body><select>" + b"<option>a thing" * 40_000 + b"</select><p>text"',
    "brackets.jsonl": 'b"[" * 60_000_000',
    "pairs.jsonl": 'b"[" + b"[]," * 20_000_000 + b"[]]"',
    "objects.jsonl": 'b\'{"a":[\' + b\'{"a":1},\' * 7_000_000 + b"0]}"',
    "brackets.json": 'b\'[{"a":\' + b"[" * 30_000_000',
    "strings.json": "b'[{\"a\":[' + b'\"\",' * 20_000_000 + b'\"\"]}]'",
    "text.json": "b'[{\"text\":\"' + b'word \\\\\" ' * 8_000_000 + b'\"}]'",
    "subject.eml": 'MAIL + b"Subject: " + b"\\n ".join([b"=?utf-8?q?word?="] * 32_000) + b"\\n\\nHello"',
    "type.eml": 'MAIL + b"Content-Type: a/b" + b"".join(b";\\n a*%d=x" % n for n in range(30_000)) + b"\\n\\nHi"',
    "disposition.eml": 'MAIL + b"Content-Disposition: inline" + b"; a=\\"x\\"" * 60_000 + b"\\n\\nHi"',
    "tags.eml": 'MAIL + b"Content-Type: text/html\\n\\n" + b"<b>x</b>" * 1_500_000',
    "parts.eml": 'MAIL + b"Content-Type: multipart/mixed; boundary=q\\n\\n" + b"--q\\n\\nx\\n" * 600_000',
    "select.eml": 'MAIL + b"Content-Type: text/html\\n\\n<select>" + b"<option>a thing" * 40_000',
    "lines.eml": 'MAIL + b"\\n" + b"a b c\\n" * 4_500_000',
    "large.eml": 'MAIL + b"\\n" + b"many words \\n" * 20_000_000',
    "lines.mbox": 'b"From a Thu Jan  1 00:00:00 1970\\n" + b"a b c\\n" * 4_500_000',
    "record.json": "b'[{\"text\":\"' + b'many words ' * 22_000_000 + b'\"}]'",
    "commas.csv": 'b"text,n\\n" + b"," * 30_000_000',
    "quotes.csv": "b'text,n\\n\"' + b'\"\"' * 15_000_000",
    "members.jsonl.gz": 'b"\\x1f\\x8b\\x08" * 4_000_000',
}
PROGRAM = """
import io, resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, {seconds}))
from groundup.text.ingest.formats import reader
from groundup.text.ingest.types import ReadOptions
MAIL = b"Received: x\\nDate: today\\n"
data = {data}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
items = sum(1 for _ in reader.read({name!r}, io.BytesIO(data), ReadOptions()))
peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
print(items, peak)
"""


@pytest.mark.parametrize("name", CASES)
def test_crafted_input_is_accounted_for_in_bounded_memory_and_time(name: str) -> None:
    program = PROGRAM.format(memory=MEMORY, seconds=SECONDS, data=CASES[name], name=name)
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=10 * SECONDS, check=False
    )
    assert run.returncode == 0, run.stderr[-500:]
    items, peak = map(int, run.stdout.split())
    assert items and peak < PEAK_MB


def test_a_reader_out_of_memory_takes_one_file_with_it(monkeypatch: pytest.MonkeyPatch) -> None:

    def exhausted(*_: object) -> object:
        raise MemoryError

    monkeypatch.setattr(plain, "read", exhausted)
    assert reasons(read("a.txt", b"x")) == [("", "rejected", "out_of_memory")]


def test_a_worker_that_dies_reading_takes_one_file_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for n in range(6):
        (tmp_path / "in" / f"{n}.txt").write_text(f"Text {n}.")
    program = DYING.format(source=str(tmp_path / "in"), folder=str(tmp_path / "ingest-1"))
    for _ in range(3):  # what the executor does: the same task again in a new worker
        run = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
        )
    assert run.returncode == 0, run.stderr[-500:]
    assert json.loads(run.stdout)["documents"] == [1, 1, 1, 0, 1, 1]
    assert "reader_died" in run.stdout and not list((tmp_path / "ingest-1").glob("reading-*"))


DYING = """
import json, os, signal
from pathlib import Path
from groundup.text.ingest.formats import plain
from groundup.text.ingest.ingest_task import IngestTask, read_files
from groundup.text.ingest.sources.files import Files
whole = plain.read
def read(path, *rest):
    if path == "3.txt":
        os.kill(os.getpid(), signal.SIGSEGV)
    return whole(path, *rest)
plain.read = read
source = Files(paths=({source!r},))
files = [[f.path, str(f.location), f.reject_reason, f.detail, f.bytes, f.digest] for f in source.files()]
folder = Path({folder!r})
folder.mkdir(exist_ok=True)
task = IngestTask(folder, {{"files": source}}, 1 << 20, {{}}, run="one run")
done = read_files(task, {{"number": 0, "label": "files", "files": files}})
print(json.dumps({{"documents": [line["documents"] for line in done["files"]], "done": str(done)}}))
"""
