"""Executor: runs shard tasks in this process, in worker processes of this machine, or on a Ray cluster (through Daft).

in:  tasks (JSON payloads), a function that turns a payload into files and returns a result
out: the results in the order of the tasks

A task is one shard of work. It depends only on its payload and writes its files atomically, so it may run anywhere,
any number of times, in any order, with the same result. Finished tasks are recorded on disk: after an interruption
only unfinished tasks run. On a cluster every node needs the workspace under the same path and groundup installed.
"""

import json
import logging
import multiprocessing
import os
import pickle
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from groundup.core.atomic_io import write_text
from groundup.core.errors import DataError, GroundupError
from groundup.core.os_errors import explain_os_errors
from groundup.core.runtime import Runtime
from groundup.core.stage import StageContext
from groundup.text.worker_process import WorkerDied, WorkerProcess, error_of_worker

SMALL_BYTES = 24 << 20
"""Below this total size tasks run in this process: starting workers takes about a second."""
TRIES = 3
"""Consecutive worker crashes without a finished task after which the run fails."""

Done = dict[str, Any]
Run = Callable[[Any, Any], Done]
TaskFunction = Callable[[str], str]
"""Runs a task: its payload -> its result, both JSON."""
Row = tuple[int, str]
"""Number of a task, and its payload or its result as JSON."""


@dataclass(frozen=True, slots=True)
class ExecutorTask:
    """One shard of work: a JSON payload, and its size in bytes for progress."""

    number: int
    about: Any
    bytes: int


def run_tasks(
    run: Run, common: Any, tasks: list[ExecutorTask], context: StageContext, runtime: Runtime, label: str
) -> list[Done]:
    """Results of `run(common, task.about)` for all tasks; tasks finished earlier are not run again.

    `run` is a module-level function (workers import it); `common` is shared by all tasks and pickled once per worker.
    Raises DataError when workers keep crashing, and any GroundupError raised by a task.
    """
    folder = context.temporary / label
    work = partial(_run_task, run, common, label, context.path)
    done_files = {task.number: _mark(folder, task) for task in tasks}
    done = {
        number: json.loads(done_file.read_text())
        for number, done_file in done_files.items()
        if done_file.exists()
    }
    pending = [task for task in tasks if task.number not in done]
    finished = sum(task.bytes for task in tasks if task.number in done)
    total = sum(task.bytes for task in tasks)
    with context.track(label, total / 1e6, "MB", finished / 1e6) as progress:
        tries = 0
        while pending:
            before = len(done)
            try:
                for task, result in _results(work, pending, runtime):
                    write_text(done_files[task.number], json.dumps(result))
                    done[task.number] = result
                    progress.advance(task.bytes / 1e6)
            except WorkerDied as died:
                tries = 1 if len(done) > before else tries + 1
                if tries >= TRIES:
                    raise DataError(
                        f"{label}: workers died {TRIES} times without finishing a task. Out of memory? "
                        f"Try --set runtime.workers=1. The last one said: {died}"
                    ) from None
                context.info(f"{label}: a worker died ({died}); going on with what is left")
            pending = [task for task in tasks if task.number not in done]
    return [done[task.number] for task in tasks]


def _mark(folder: Path, task: ExecutorTask) -> Path:
    return folder / f"{task.number:06d}.json"


def _results(
    work: TaskFunction, tasks: list[ExecutorTask], runtime: Runtime
) -> Iterator[tuple[ExecutorTask, Done]]:
    workers = min(runtime.workers or os.cpu_count() or 1, len(tasks))
    if not runtime.ray and (workers == 1 or sum(task.bytes for task in tasks) < SMALL_BYTES):
        for task in tasks:
            yield task, json.loads(work(json.dumps(task.about)))
        return
    by_number = {task.number: task for task in tasks}
    ordered = sorted(
        tasks, key=lambda task: (-task.bytes, task.number)
    )  # none is left alone with the largest
    rows = [(task.number, json.dumps(task.about)) for task in ordered]
    results = _by_ray(work, rows, runtime.ray) if runtime.ray else _by_processes(work, rows, workers)
    for number, result in results:
        yield by_number[number], json.loads(result)


def _run_task(run: Run, common: Any, label: str, folder: Path, about: str) -> str:
    with explain_os_errors(label, folder):
        return json.dumps(run(common, json.loads(about)))


def _by_processes(work: TaskFunction, rows: list[Row], workers: int) -> Iterator[Row]:
    """Results of worker processes of this machine, each of which has one task at a time.

    Raises WorkerDied after a worker died and the others have finished their tasks.
    """
    waiting, died = deque(rows), ""
    with ExitStack() as stack:
        idle = [stack.enter_context(WorkerProcess(work)) for _ in range(workers)]
        busy: dict[Any, tuple[WorkerProcess, int]] = {}
        while busy or (waiting and not died):
            try:
                while waiting and idle and not died:
                    worker, (number, about) = idle.pop(), waiting.popleft()
                    worker.call(about)
                    busy[worker.connection] = worker, number
                for connection in wait(list(busy)):
                    worker, number = busy.pop(connection)
                    yield number, worker.reply()
                    idle.append(worker)
            except WorkerDied as death:
                died = str(death)
    if died:
        raise WorkerDied(died)


def _by_daft(work: TaskFunction, rows: list[Row], workers: int) -> Iterator[Row]:
    """Daft plan with one row per task, split so that each task is scheduled separately."""
    os.environ.setdefault("DO_NOT_TRACK", "true")
    import daft

    frame = daft.from_pydict({"number": [row[0] for row in rows], "about": [row[1] for row in rows]})
    frame = frame.into_partitions(len(rows))
    worker = daft.cls(_ClusterWorker, use_process=True, max_concurrency=workers)(
        tuple(sys.path), pickle.dumps(work)
    )
    try:
        replies = frame.select(frame["number"], worker(frame["about"]).alias("reply"))
        for row in replies.iter_rows(results_buffer_size=None):
            yield row["number"], row["reply"]
    except Exception as error:  # whatever Daft raises for a dead process; errors of a task itself are results
        raise WorkerDied(_last_line(error)) from error


class _ClusterWorker:
    """Worker process on a node of a cluster: runs one task at a time."""

    def __init__(self, path: tuple[str, ...], packed: bytes) -> None:
        sys.path[:] = path  # a user's own parts lie where the run was started
        self._packed = packed

    @cached_property
    def _work(self) -> TaskFunction:
        work: TaskFunction = pickle.loads(self._packed)
        return work

    def __call__(self, about: str) -> str:
        try:
            reply = {"done": self._work(about)}
        except Exception as error:
            problem = error_of_worker(error)
            reply = {"error" if isinstance(problem, GroundupError) else "bug": str(problem)}
        return json.dumps(reply)


def _by_ray(work: TaskFunction, rows: list[Row], address: str) -> Iterator[Row]:
    """The same plan on a Ray cluster, driven from a child process: Ray ends a driver whose node dies."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_drive, args=(work, rows, address, sender), daemon=True)
    child.start()
    sender.close()
    try:
        while (item := receiver.recv()) is not None:
            if isinstance(item, Exception):
                raise item
            number, answer = item
            reply = json.loads(answer)
            if "error" in reply:
                raise DataError(reply["error"])
            if "bug" in reply:
                raise RuntimeError(reply["bug"])
            yield number, reply["done"]
        child.join()  # it takes its leave of the cluster
    except EOFError:
        raise WorkerDied("the node that this run was connected to is gone") from None
    finally:
        child.terminate()
        child.join()


def _drive(work: TaskFunction, rows: list[Row], address: str, sender: Connection) -> None:
    """Child process: joins the cluster, sends every row's reply, then None."""
    import daft
    import ray

    try:
        if address != "auto":  # Ray itself would wait minutes for a cluster that isn't there
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=5).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        sender.send(DataError(f"runtime.ray = {address!r}: can't join that Ray cluster. {_last_line(error)}"))
        return
    daft.set_runner_ray(noop_if_initialized=True)
    workers = max(
        1,
        int(
            ray.cluster_resources().get("CPU", 1)  # type: ignore[no-untyped-call]
        ),
    )
    try:
        for item in _by_daft(work, rows, min(workers, len(rows))):
            sender.send(item)
        sender.send(None)
    except WorkerDied as died:
        sender.send(died)


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1][:200]
