"""Tracked files of real repositories, friendly and hostile."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from groundup.core.errors import DataError
from groundup.text.ingest.safe_open import Unreadable
from groundup.text.ingest.sources.git import Git
from groundup.text.ingest.types import SourceFile


def git(folder: Path, *words: str) -> str:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    who = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "HOME": str(folder)}
    command = [
        "git",
        "-C",
        str(folder),
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b.c",
        "-c",
        "commit.gpgsign=false",
    ]
    return subprocess.run(
        [*command, *words], env=clean | who, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "some repository"
    (folder / "docs").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "read.md").write_text("# Lamp\n")
    (folder / "docs" / "größe.txt").write_text("first\n")
    (folder / "docs" / "link").symlink_to("../read.md")
    (folder / "big.bin").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 9\n"
    )
    (folder / "empty.txt").touch()
    git(folder, "add", ".")
    git(folder, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},vendor")
    git(folder, "commit", "-qm", "one")
    (folder / "docs" / "größe.txt").write_text("second\n")
    git(folder, "add", "docs")
    git(folder, "commit", "-qm", "two")
    (folder / "untracked.txt").write_text("nobody tracks me")
    (folder / "read.md").write_text("changed, not committed")
    return folder


def listed(source: Git) -> dict[str, SourceFile]:
    return {file.path: file for file in source.files()}


def content(source: Git, file: SourceFile) -> bytes:
    with source.open(file) as opened:
        return opened.read()


def test_tracked_files_are_offered_as_they_were_committed(repository: Path) -> None:
    source = Git(repository=str(repository))
    files = listed(source)
    assert list(files) == ["big.bin", "docs/größe.txt", "docs/link", "empty.txt", "read.md", "vendor"]
    assert content(source, files["read.md"]) == b"# Lamp\n" and files["read.md"].bytes == 7
    assert content(source, files["docs/größe.txt"]) == b"second\n"
    assert content(source, files["empty.txt"]) == b""
    assert files["read.md"].digest == hashlib.sha1(b"blob 7\x00# Lamp\n").hexdigest()
    assert {path: file.reject_reason for path, file in files.items() if file.reject_reason} == {
        "docs/link": "symlink",
        "vendor": "submodule",
    }


def test_a_revision_is_read_as_it_was(repository: Path) -> None:
    source = Git(repository=str(repository), revision="HEAD~1")
    assert content(source, listed(source)["docs/größe.txt"]) == b"first\n"


def test_globs_choose_files_and_a_folder_within_is_a_root(repository: Path) -> None:
    chosen = Git(repository=str(repository), include=("**/*.txt", "*.md"), exclude=("empty*",))
    assert list(listed(chosen)) == ["docs/größe.txt", "read.md"]
    within = Git(repository=str(repository / "docs"))
    assert list(listed(within)) == ["größe.txt", "link"]
    assert content(within, listed(within)["größe.txt"]) == b"second\n"


def test_pointers_to_large_files_and_files_over_the_limit_cant_be_opened(repository: Path) -> None:
    source = Git(repository=str(repository), max_file_bytes=150)
    with pytest.raises(Unreadable, match="lfs_pointer"):
        content(source, listed(source)["big.bin"])
    small = Git(repository=str(repository), max_file_bytes=3)
    with pytest.raises(Unreadable, match="too_large"):
        content(small, listed(small)["read.md"])


def test_a_blob_that_is_missing_is_one_files_trouble(repository: Path) -> None:
    source = Git(repository=str(repository))
    with pytest.raises(Unreadable, match="missing_object"):
        content(source, SourceFile("gone", "2" * 40, bytes=1))
    assert content(source, listed(source)["read.md"]) == b"# Lamp\n"


def test_a_hostile_repository_runs_nothing(repository: Path, tmp_path: Path) -> None:
    trap, sprung = tmp_path / "trap.sh", tmp_path / "sprung"
    trap.write_text(f"#!/bin/sh\necho $0 >> {sprung}\n")
    trap.chmod(0o755)
    blob = git(repository, "rev-parse", "HEAD:read.md")
    (
        repository / ".git" / "objects" / blob[:2] / blob[2:]
    ).unlink()  # an incomplete clone fetches what it lacks
    for key, value in {
        "core.fsmonitor": str(trap),
        "core.hooksPath": str(tmp_path),
        "core.pager": str(trap),
        "core.sshCommand": str(trap),
        "core.alternateRefsCommand": str(trap),
        "filter.x.smudge": str(trap),
        "diff.x.textconv": str(trap),
        "extensions.partialClone": "origin",
        "core.repositoryFormatVersion": "1",
        "remote.origin.promisor": "true",
        "remote.origin.url": f"ext::{trap}",
        "remote.origin.uploadpack": str(trap),
        "protocol.ext.allow": "always",
        "alias.ls-tree": f"!{trap}",
    }.items():
        git(repository, "config", key, value)
    (repository / ".git" / "info" / "attributes").write_text("* filter=x diff=x\n")
    source = Git(repository=str(repository))
    files = listed(source)
    with pytest.raises(Unreadable, match="missing_object"):
        content(source, files["read.md"])
    assert content(source, files["docs/größe.txt"]) == b"second\n"
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"repository": ""}, "needs a repository"),
        ({"repository": "/nowhere/at/all"}, "is no git repository"),
        ({"revision": "no-such-branch"}, "has no revision 'no-such-branch'"),
        ({"revision": "--output=x"}, "has no revision"),
        ({"include": ("*.rs",)}, "has no tracked file at 'HEAD' that matches"),
    ],
)
def test_mistakes_are_named(repository: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(Git(**({"repository": str(repository)} | settings)).files())


def test_a_folder_that_is_no_repository_and_a_machine_without_git_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="is no git repository"):
        list(Git(repository=str(tmp_path)).files())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="isn't installed"):
        list(Git(repository=str(tmp_path)).files())
