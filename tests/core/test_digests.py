"""Kept digests: hashed again exactly when a file may have changed, and never in the way of a command."""

import os
import sqlite3
import time
from hashlib import sha256
from pathlib import Path

import pytest

from groundup.core import digests as module
from groundup.core.digests import DigestCache


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were hashed."""
    names: list[str] = []

    def recorded(path: Path) -> str:
        names.append(path.name)
        return sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(module, "sha256_file", recorded)
    return names


def old_file(path: Path, content: str) -> Path:
    """A file whose last change is older than the limit below which digests aren't kept."""
    path.write_text(content)
    settle(path)
    return path


def settle(path: Path) -> None:
    """Wait until the file's times are old enough; a change of its inode's time can't be set, only awaited."""
    while time.time_ns() - path.stat().st_ctime_ns < module.SETTLE_SECONDS * 1e9:
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.2)


def digest(cache_file: Path, path: Path, trust: bool = True) -> str:
    """The digest as a process of its own would get it."""
    cache = DigestCache(cache_file, trust)
    value = cache.sha256(path)
    cache.flush()
    return value


def test_an_unchanged_file_is_hashed_once(tmp_path: Path, hashed: list[str]) -> None:
    file, cache = old_file(tmp_path / "a", "text"), tmp_path / "w" / "digests.sqlite"
    assert digest(cache, file) == digest(cache, file) == sha256(b"text").hexdigest()
    assert hashed == ["a"]
    assert digest(cache, file, trust=False) == sha256(b"text").hexdigest()
    assert hashed == ["a", "a"]


@pytest.mark.parametrize("change", ["longer", "same size", "same size and time", "replaced"])
def test_a_changed_file_is_hashed_again(tmp_path: Path, hashed: list[str], change: str) -> None:
    file, cache = old_file(tmp_path / "a", "text"), tmp_path / "digests.sqlite"
    digest(cache, file)
    before = file.stat()
    if change == "replaced":
        other = tmp_path / "b"
        other.write_text("TEXT")
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        other.replace(file)
    else:
        file.write_text("longer text" if change == "longer" else "TEXT")
    if change == "same size and time":
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert digest(cache, file) == sha256(file.read_bytes()).hexdigest()
    assert len(hashed) == 2


def test_the_digest_of_a_file_that_was_just_written_is_not_kept(tmp_path: Path, hashed: list[str]) -> None:
    file, cache = tmp_path / "a", tmp_path / "digests.sqlite"
    file.write_text("text")
    digest(cache, file)
    digest(cache, file)
    assert hashed == ["a", "a"]
    settle(file)
    digest(cache, file)
    digest(cache, file)
    assert hashed == ["a", "a", "a"]


def test_a_cache_that_is_damaged_or_cannot_be_written_only_costs_time(tmp_path: Path) -> None:
    file, cache = old_file(tmp_path / "a", "text"), tmp_path / "digests.sqlite"
    cache.write_bytes(b"this is no database, but long enough to be taken for one" * 100)
    assert digest(cache, file) == sha256(b"text").hexdigest()
    assert not cache.exists()  # deleted: the next process starts a new one
    digest(cache, file)
    assert sqlite3.connect(cache).execute("SELECT count(*) FROM digests").fetchone() == (1,)
    (tmp_path / "file").write_text("not a folder")
    assert digest(tmp_path / "file" / "digests.sqlite", file) == sha256(b"text").hexdigest()


def test_entries_of_deleted_files_are_forgotten(tmp_path: Path) -> None:
    cache = DigestCache(tmp_path / "digests.sqlite")
    for name in ("a", "b"):
        cache.sha256(old_file(tmp_path / name, name))
    cache.keep("s3://bucket/a", '"etag"', "digest")
    (tmp_path / "a").unlink()
    assert cache.forget_missing() == 1
    assert cache.get("s3://bucket/a", '"etag"') == "digest"
