"""Downloads remote files to temporary files through Daft's S3 and HTTP readers, with retries.

in:  a URL, and the size from a listing
out: a seekable file

A missing or forbidden object affects one file (Unreadable). A server that doesn't respond affects the whole corpus,
which would be silently incomplete: that is a DataError, and a rerun resumes.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from groundup.core.errors import DataError
from groundup.core.os_errors import explain_os_errors
from groundup.text.ingest.safe_open import Unreadable
from groundup.text.ingest.types import SourceFile

TRIES = 5
BACKOFF_SECONDS, CONNECT_SECONDS, READ_SECONDS = 1.0, 10.0, 60.0
CHUNK = 16 << 20
_IN_MEMORY = 1 << 20

_MISSING = ("not found", "NoSuchKey")
_FORBIDDEN = "AccessDenied"


def io_config(token: str = "", **s3: Any) -> Any:
    """Daft's IO settings: timeouts, retries, an HTTP bearer token, S3 options."""
    import daft

    waiting: dict[str, Any] = {
        "num_tries": TRIES,
        "retry_initial_backoff_ms": int(BACKOFF_SECONDS * 1000),
        "connect_timeout_ms": int(CONNECT_SECONDS * 1000),
        "read_timeout_ms": int(READ_SECONDS * 1000),
    }
    return daft.io.IOConfig(
        s3=daft.io.S3Config(**waiting, **{key: value for key, value in s3.items() if value}),
        http=daft.io.HTTPConfig(**waiting, bearer_token=token or None),
    )


@contextmanager
def download(file: SourceFile, config: Any, max_bytes: int) -> Iterator[BinaryIO]:
    """The bytes at `file.location`, fetched in chunks. Raises Unreadable and DataError."""
    if file.bytes > max_bytes:
        raise Unreadable("too_large", value=file.bytes, threshold=max_bytes)
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as copy:
        at = 0
        while left := file.bytes - at:
            size = min(CHUNK, left) + (left <= CHUNK)  # one byte more than there should be at the end
            piece = _piece(str(file.location), at, size, config)
            if not min(CHUNK, left) <= len(piece) <= left:
                raise Unreadable("changed_since_listed", value=at + len(piece), threshold=file.bytes)
            with explain_os_errors(f"a copy of {file.path}", Path(tempfile.gettempdir())):
                copy.write(piece)
            at += len(piece)
        copy.seek(0)
        yield cast(BinaryIO, copy)


def reason(error: BaseException) -> str:
    """The last cause in Daft's error message, which is the readable one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


def _piece(url: str, start: int, size: int, config: Any) -> bytes:
    """Bytes from `start`; the whole file if the server doesn't support ranges."""
    import daft

    try:
        with daft.File(url, io_config=config, position=start, size=size).open() as part:
            data: bytes = part.read()
            return data
    except (OSError, ValueError, RuntimeError) as error:
        message = str(error).replace(url, "")
        if any(mark in message for mark in _MISSING):
            raise Unreadable("missing", f"it was listed, but is gone: {reason(error)}") from None
        if _FORBIDDEN in message:
            raise Unreadable("forbidden", reason(error)) from None
        raise DataError(
            f"ingest.sources: {url} can't be read ({reason(error)}). Check the network, and that you may read it; "
            "the same command goes on where this one stopped."
        ) from None
