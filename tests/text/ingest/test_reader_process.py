"""Readers that crash: the file is rejected with the signal, everything else is read, with one worker and with two."""

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from groundup.core.errors import GroundupError
from groundup.core.progress import Reporter
from groundup.core.runtime import Runtime
from groundup.core.stage import StageContext
from groundup.text import executor
from groundup.text.ingest import ingest_task, reader_process
from groundup.text.ingest.ingest import Ingest, ingest
from groundup.text.ingest.safe_open import Unreadable, open_regular
from groundup.text.ingest.sources.files import Files
from groundup.text.ingest.types import ExtractedText, ReadIssue
from text_helpers import Built, run_acquire

PAGE = "<!doctype html><html><body><p>{}</p></body></html>"


class Crashing(Files):
    """Files whose reader dies of the signal that a file names, after as many texts; once, where a file says so."""

    def read(self, path: str, file: BinaryIO, skip: int = 0) -> Iterator[ExtractedText | ReadIssue]:
        """The process's number, `texts` times."""
        words = file.read().decode().split()
        if "dies" not in words:
            yield ExtractedText(f"read by {os.getpid()}")
            return
        _, name, texts, once, *_ = words[words.index("dies") :]
        for number in range(skip, int(texts)):
            yield ExtractedText(f"text {number}", str(number + 1))
        if once == "always" or Path(once).exists():
            Path(once).unlink(missing_ok=True)
            os.kill(os.getpid(), signal.Signals[name])
        yield ExtractedText("the last text", texts + "0")


def built(folder: Path, source: Files, runtime: Runtime | None = None) -> Built:
    work = StageContext(folder, Reporter(quiet=True))
    metrics = ingest(Ingest(sources=(source,), few_files=0), runtime or Runtime(), work)
    work.close()
    return Built(folder, metrics)


@pytest.mark.parametrize(("name", "workers"), [("SIGSEGV", 1), ("SIGKILL", 2)])
def test_a_reader_that_dies_costs_its_file_and_no_other(
    tmp_path: Path, name: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "SMALL_BYTES", 0)
    folder = tmp_path / "pages"
    folder.mkdir()
    (folder / "a.html").write_text(PAGE.format("good"))
    (folder / "b.html").write_text(PAGE.format(f" dies {name} 0 always "))
    (folder / "c.html").write_text(PAGE.format(f" dies {name} 3 always "))
    (folder / "d.html").write_text(PAGE.format("good"))
    read = built(tmp_path / "ingest-a", Crashing(paths=(str(folder),)), Runtime(workers=workers))
    texts, issues = read.texts(), {entry.path: entry for entry in read.rejects()}
    assert set(texts) == {"a.html", "c.html#1", "c.html#2", "c.html#3", "d.html"}
    assert {path: (entry.outcome, entry.reason) for path, entry in issues.items()} == {
        "b.html": ("rejected", "reader_died"),
        "c.html": ("changed", "reader_died"),
    }
    number = signal.Signals[name].value
    assert issues["b.html"].detail == f"the reader was killed by signal {number} ({name})"
    assert issues["c.html"].detail.endswith("everything before it is kept")


def test_a_reader_that_was_killed_by_chance_reads_its_file_again(tmp_path: Path) -> None:
    flag, folder = tmp_path / "flag", tmp_path / "pages"
    folder.mkdir()
    flag.touch()
    (folder / "a.html").write_text(PAGE.format(f" dies SIGKILL 3 {flag} "))
    read = built(tmp_path / "ingest-a", Crashing(paths=(str(folder),)))
    assert list(read.texts().values()) == ["text 0", "text 1", "text 2", "the last text"]
    assert not read.rejects()


def test_plain_text_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(function: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(reader_process, "WorkerProcess", refuse)
    for name, text in {
        "a.py": "x = 1",
        "b.txt": "words",
        "c.jsonl": '{"text": "words"}',
        "d.csv": "text\nwords",
    }.items():
        (tmp_path / name).write_text(text)
    read = run_acquire(tmp_path / "ingest-a", tmp_path / "*.*")
    assert len(read.texts()) == 4


def test_a_full_disk_is_not_taken_for_an_unreadable_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("A text that is long enough.")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ingest_task.TaskShards, "add", full)
    with pytest.raises(GroundupError, match=r"^ingest: No space left on device: .*/ingest-a "):
        run_acquire(tmp_path / "ingest-a", tmp_path / "a.txt")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
def test_too_many_open_files_reject_no_file(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("A text.")

    def refuse(*_: Any, **__: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError) as raised, open_regular(tmp_path / "a.txt"):
        pass
    assert raised.value.errno == number


def test_an_error_while_reading_is_the_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A text.")
    with pytest.raises(Unreadable), open_regular(tmp_path / "a.txt") as file:
        os.dup2(os.open(tmp_path, os.O_RDONLY), file.fileno())  # reading a folder fails
        file.read()
    with pytest.raises(GroundupError), open_regular(tmp_path / "a.txt"):
        raise GroundupError("of the caller")
