"""Errors of the system, in whatever exception a library wraps them: one message with the path and what to do."""

import errno
import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

from groundup.core.errors import DataError, GroundupError
from groundup.core.os_errors import explain, explain_os_errors

FULL = Path("/dev/full")
"""A device on which every write fails for lack of space."""


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, r"bytes are free\)\. Free some space on that disk"),
        (errno.EDQUOT, "Free some space on that disk"),
        (errno.EACCES, "Ask the owner for permission, or choose another folder"),
        (errno.EPERM, "Ask the owner for permission"),
        (errno.EROFS, "That file system is mounted read-only: choose another folder"),
        (errno.EIO, r"check them \(dmesg\)"),
        (errno.EMFILE, r"ulimit -n 4096"),
        (errno.ENOENT, "Check that path"),
        (errno.ENOTCONN, "Remove the cause"),
    ],
)
def test_a_message_names_the_work_the_reason_the_path_and_what_to_do(
    number: int, advice: str, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    with (
        pytest.raises(GroundupError) as raised,
        explain_os_errors("the training state", Path("/elsewhere")),
    ):
        raise OSError(number, os.strerror(number), str(path))
    assert str(raised.value).startswith(f"the training state: {os.strerror(number)}: {path}")
    assert re.search(advice, str(raised.value))


def test_an_error_without_a_path_names_the_folder_that_was_written(tmp_path: Path) -> None:
    explained = explain(OSError(errno.ENOSPC, "x"), "the model", tmp_path, needed=12_345)
    assert f"No space left on device: {tmp_path} (it needs 12,345 bytes, and " in str(explained)


def test_who_owns_a_folder_is_named_where_permission_is_missing(tmp_path: Path) -> None:
    explained = explain(PermissionError(errno.EACCES, "x", str(tmp_path / "no" / "file")))
    assert re.search(rf"{tmp_path} belongs to \w+, and the user of this process is \w+", str(explained))


def _numpy(path: Path) -> None:
    with path.open("wb") as file:
        np.zeros(1 << 20).tofile(file)


def _sqlite(_: Path) -> None:
    raise sqlite3.OperationalError("database or disk is full")


def _threads(_: Path) -> None:
    raise RuntimeError("can't start new thread")


def _torch_memory(_: Path) -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


WRITES: dict[str, tuple[int, Callable[[Path], None]]] = {
    "numpy": (errno.ENOSPC, _numpy),
    "pyarrow": (errno.ENOSPC, lambda path: pq.write_table(pa.table({"a": range(1 << 16)}), str(path))),
    "torch": (errno.ENOSPC, lambda path: torch.save(torch.zeros(1 << 20), path)),
    "safetensors": (errno.ENOENT, lambda path: save_file({"a": torch.zeros(8)}, path.parent / "no" / "file")),
    "tokenizers": (errno.ENOSPC, lambda path: Tokenizer(models.BPE()).save(str(path))),
    "sqlite": (errno.ENOSPC, _sqlite),
    "threads": (errno.EAGAIN, _threads),
    "torch memory": (errno.ENOMEM, _torch_memory),
}


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("library", WRITES)
def test_an_error_of_the_system_is_recognised_in_a_librarys_exception(library: str, tmp_path: Path) -> None:
    number, write = WRITES[library]
    path = tmp_path / "full"
    path.symlink_to(FULL)  # pyarrow deletes what it could not write
    with pytest.raises(Exception) as raised:
        write(path)
    assert os.strerror(number) in str(explain(raised.value))


def test_a_cause_is_recognised_and_other_errors_stay_as_they_are() -> None:
    try:
        raise RuntimeError("the compiler failed") from OSError(errno.EROFS, "x", "/cache")
    except RuntimeError as error:
        assert "Read-only file system: /cache" in str(explain(error))
    assert explain(ValueError("a bug")) is None
    panic = "ThreadPoolBuildError { kind: IOError(Os { code: 5, kind: InputOutputError }) }"
    with pytest.raises(GroundupError, match="Input/output error"), explain_os_errors("", Path()):
        raise BaseException(panic)
    with pytest.raises(DataError, match=r"^no documents$"), explain_os_errors("curate", Path()):
        raise DataError("no documents") from OSError(errno.EIO, "x")


def test_no_temporary_folder_is_said_with_the_variable_to_set() -> None:
    error = FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp', '/var/tmp']")
    assert (
        str(explain(error))
        == "no temporary folder can be written. Set TMPDIR to a folder that can be written"
    )
