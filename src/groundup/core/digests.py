"""Kept content digests: a file is hashed again only after its size, times or inode change.

in:  paths of local files; URLs of objects with the stamp their store gives them (ETag, or size and time)
out: SHA-256 in hex, or whatever the caller computes; kept in `workspace/digests.sqlite`

A file system's clock is coarse: two writes within one tick leave the same times. A digest of a file that was changed
less than SETTLE_SECONDS before it was hashed is therefore not kept (git's index treats "racy" entries alike). The
cache only saves time: where it can't be read or written, everything is hashed.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from groundup.core.atomic_io import sha256_file

SETTLE_SECONDS = 2.0
"""Age of the last change below which a digest isn't kept; FAT has the coarsest clock of the common file systems."""
_WAITING = 512
"""Digests that are collected before they are written."""


class DigestCache:
    """Digests by path (or URL) and stamp. Not thread-safe; several processes may share one file."""

    def __init__(self, path: Path | None = None, trust: bool = True) -> None:
        """path: where digests are kept; None = nowhere. trust: False = recompute everything, and keep that."""
        self._path = path
        self._trust = trust
        self._waiting: dict[str, tuple[str, str]] = {}
        self._connection: sqlite3.Connection | None = None
        self._usable = path is not None

    def sha256(self, path: Path) -> str:
        """SHA-256 (hex) of a file's bytes. Raises OSError."""
        return self.of_file(path, lambda: sha256_file(path))

    def of_file(self, path: Path, compute: Callable[[], str]) -> str:
        """The digest of the regular file `path`, which `compute` returns. Raises what that raises."""
        key, status = os.path.abspath(path), os.lstat(path)  # noqa: PTH100 (three times as fast as Path.absolute)
        kept = self.get(key, file_stamp(status))
        if kept is not None:
            return kept
        started = time.time_ns()
        digest = compute()
        self.keep_file(path, status, started, digest)
        return digest

    def keep_file(self, path: Path, status: os.stat_result, started: int, digest: str) -> None:
        """Keep the digest of a file that had this status when hashing started (nanoseconds since the epoch)."""
        changed = max(status.st_mtime_ns, status.st_ctime_ns)
        if started - changed > SETTLE_SECONDS * 1e9:
            self.keep(os.path.abspath(path), file_stamp(status), digest)  # noqa: PTH100

    def get(self, key: str, stamp: str) -> str | None:
        """The digest kept for `key` with this stamp."""
        if not self._trust:
            return None
        entry = self._waiting.get(key) or self._read(key)
        return entry[1] if entry is not None and entry[0] == stamp else None

    def keep(self, key: str, stamp: str, digest: str) -> None:
        """Remember a digest; it is written with the next ones, or by `flush`."""
        if self._usable:
            self._waiting[key] = (stamp, digest)
            if len(self._waiting) >= _WAITING:
                self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        if not self._waiting:
            return
        rows = [(os.fsencode(key), *value) for key, value in self._waiting.items()]
        self._waiting.clear()
        try:
            with self._open(create=True) as connection:
                connection.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", rows)
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def forget_missing(self) -> int:
        """Delete the entries of local files that no longer exist; returns how many there were."""
        self.flush()
        try:
            with self._open(create=False) as connection:
                paths = [path for (path,) in connection.execute("SELECT path FROM digests")]
                gone = [(path,) for path in paths if path.startswith(b"/") and not os.path.lexists(path)]
                connection.executemany("DELETE FROM digests WHERE path = ?", gone)
                return len(gone)
        except (sqlite3.Error, OSError):
            return 0

    def _read(self, key: str) -> tuple[str, str] | None:
        if not self._usable:
            return None
        try:
            connection = self._open(create=False)
            row = connection.execute("SELECT stamp, digest FROM digests WHERE path = ?", (os.fsencode(key),))
            entry: tuple[str, str] | None = row.fetchone()
        except FileNotFoundError:
            return None
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
            return None
        return entry

    def _open(self, create: bool) -> sqlite3.Connection:
        """Raises FileNotFoundError where there is no file yet and none is to be created."""
        if self._connection is None:
            if self._path is None or not (create or self._path.exists()):
                raise FileNotFoundError(self._path)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._path, timeout=5.0)
            self._connection = connection
            connection.execute("PRAGMA synchronous = OFF")  # a cache that a crash damages is deleted
            connection.execute(
                "CREATE TABLE IF NOT EXISTS digests (path BLOB PRIMARY KEY, stamp TEXT, digest TEXT) WITHOUT ROWID"
            )
        return self._connection

    def _give_up(self, error: Exception) -> None:
        """Go on without the cache. A damaged file is deleted; one that is locked or read-only stays."""
        if self._connection is not None:
            self._connection.close()
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            with contextlib.suppress(OSError):
                if self._path is not None:
                    self._path.unlink(missing_ok=True)
        self._connection, self._usable = None, False
        self._waiting.clear()


def file_stamp(status: os.stat_result) -> str:
    """What changes when a file is written, replaced or restored: size, times and inode."""
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_dev}:{status.st_ino}"


UNCACHED = DigestCache()
"""Keeps nothing: every file is hashed."""
