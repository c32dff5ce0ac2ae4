"""Reading in a process of its own: a reader that crashes costs its file, not the run.

in:  a source and one of its open files
out: the items of `source.read`; where the process died twice, those before, and an issue that says how it ended

Text, JSON and CSV are read by Python alone, and PDF has its own process: they stay in this process, so most corpora
start no other one. Everything else goes through parsers in C and C++, which a damaged file can end by a signal.
"""

import os
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import BinaryIO

from groundup.text.ingest.formats.decompress import compression
from groundup.text.ingest.formats.detect import detect_format
from groundup.text.ingest.safe_open import Unreadable, open_descriptor
from groundup.text.ingest.types import ExtractedText, ReadIssue, ReadOptions, Source
from groundup.text.worker_process import WorkerDied, WorkerProcess

STARTS = 2
"""Processes that may die at a file before it is given up: the first may have been killed for another reason."""
_HEAD = 1 << 16
_SAFE = frozenset({"plain", "jsonl", "json_array", "csv", "pdf"})
_BATCH, _BATCH_CHARS = 256, 1 << 20

Item = ExtractedText | ReadIssue


def read_safely(source: Source, path: str, file: BinaryIO, skip: int = 0) -> Iterator[Item]:
    """The items of `source.read`, which runs in another process where its parser isn't Python's own."""
    head = file.read(_HEAD)
    file.seek(0)
    if _is_safe(path, head):
        yield from source.read(path, file, skip)
        return
    count, any_text, death = 0, skip > 0, ""
    for start in range(STARTS):
        try:
            for item in islice(_read_elsewhere(source, path, file, skip, batched=start == 0), count, None):
                yield item
                count, any_text = count + 1, any_text or isinstance(item, ExtractedText)
            return
        except WorkerDied as died:
            death = str(died)
    kept = "; everything before it is kept" if any_text else ""
    yield ReadIssue("changed" if any_text else "rejected", "reader_died", detail=f"the reader {death}{kept}")


def _is_safe(path: str, head: bytes) -> bool:
    detected = detect_format(path, head, b"", "", ReadOptions()).format
    return not compression(head) and detected is not None and detected.name in _SAFE


def _read_elsewhere(source: Source, path: str, file: BinaryIO, skip: int, batched: bool) -> Iterator[Item]:
    file.flush()  # of a temporary copy
    worker = _worker(os.getpid())
    finished = False
    try:
        worker.call(source, path, skip, batched, file=file.fileno())
        for batch in worker.replies():
            if isinstance(batch, Exception):
                raise batch
            yield from batch
        finished = True
    finally:
        if not finished:  # unread replies would answer the next call
            worker.stop()
            _worker.cache_clear()


@lru_cache(maxsize=1)
def _worker(owner: int) -> WorkerProcess:
    """The process that reads for the process `owner`; a fork has its own."""
    return WorkerProcess(read_batches)


def read_batches(
    source: Source, path: str, skip: int, batched: bool, handle: int
) -> Iterator[list[Item] | Unreadable]:
    """The items of a file, in the worker process. batched: many at a time; else none waits for the next one."""
    batch: list[Item] = []
    chars = 0
    try:
        with open_descriptor(handle) as file:
            file.seek(0)
            for item in source.read(path, file, skip):
                batch.append(item)
                chars += len(item.text) if isinstance(item, ExtractedText) else 0
                if not batched or len(batch) == _BATCH or chars > _BATCH_CHARS:
                    yield batch
                    batch, chars = [], 0
        yield batch
    except Unreadable as error:
        yield batch
        yield error
