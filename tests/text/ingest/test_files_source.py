"""The source `files`: fields of tables, licences, and folders that are out to hurt."""

import gzip
import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from pydantic import ValidationError

from format_helpers import parquet
from groundup.core.errors import DataError
from groundup.text.documents import read_documents
from groundup.text.ingest.discover import find
from groundup.text.ingest.safe_open import Unreadable
from groundup.text.ingest.sources.files import Files
from groundup.text.ingest.types import ExtractedText, ReadIssue, SourceFile
from text_helpers import Built

PROSE = "The keeper lit the lamp, and the ships came home."
RECORD = {"body": PROSE, "rights": "CC0", "tongue": "en", "url": "https://example.org/1"}
FIELDS = {"text": "body", "licence": "rights", "language": "tongue", "path": "url"}
LINES = (json.dumps(RECORD) + "\n" + json.dumps({"body": PROSE})).encode()
TABLE = f'body,rights,tongue,url\n"{PROSE}",CC0,en,https://example.org/1\n"{PROSE}",,,\n'.encode()

FILES = {
    "a.jsonl": LINES,
    "a.jsonl.gz": gzip.compress(LINES),
    "a.jsonl.zst": zstandard.compress(LINES),
    "a.csv": TABLE,
    "a.csv.gz": gzip.compress(TABLE),
    "a.tsv": TABLE.replace(b",CC0,", b"\tCC0\t").replace(b"en,h", b"en\th").replace(b",,,", b"\t\t\t")
    .replace(b"body,rights,tongue,url", b"body\trights\ttongue\turl"),
    "a.parquet": parquet(**{key: [value, PROSE if key == "body" else None] for key, value in RECORD.items()}),
}  # fmt: skip


def items(source: Files) -> dict[str, list[ExtractedText | ReadIssue]]:
    """What is in every file."""
    found = {}
    for file in source.files():
        with source.open(file) as opened:
            found[file.path] = list(source.read(file.path, opened))
    return found


@pytest.mark.parametrize("name", FILES)
def test_columns_become_text_licence_language_and_path(
    tmp_path: Path, name: str, ingested: Callable[..., Built]
) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    built = ingested(tmp_path, fields=FIELDS, licence="internal")
    first, second = read_documents(built.path)
    assert (first.text, first.licence, first.language, first.path) == (PROSE, "CC0", "en", RECORD["url"])
    assert (second.text, second.licence, second.language, second.path) == (PROSE, "internal", "", f"{name}#2")
    assert not built.rejects()


@pytest.mark.parametrize("name", FILES)
def test_a_column_that_isnt_there_is_named_with_file_and_line(
    tmp_path: Path, name: str, ingested: Callable[..., Built]
) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    (tmp_path / "other.txt").write_text(PROSE)
    built = ingested(tmp_path, fields={"text": "content"})
    entry = built.rejects()[0]
    assert entry.reason == "no_text_field" and "'content'" in entry.detail
    if "jsonl" in name:
        assert entry.path == f"{name}#1" and entry.detail.startswith("record 1: no ")
    else:
        assert entry.path == name and "rows have: body, rights, tongue, url" in entry.detail


def test_what_a_source_cant_be_told_is_refused() -> None:
    with pytest.raises(ValidationError, match="`txt` is nothing a document has; known: text, path"):
        Files(fields={"txt": "body"})
    for wrong in ({"weight": 0}, {"max_epochs": -1}, {"max_file_bytes": 0}, {"max_expansion": 1}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            Files(**wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="needs paths"):
        list(Files().files())


def test_weights_and_places_are_no_part_of_what_is_read() -> None:
    assert {"paths", "weight", "max_epochs"} <= Files.not_identity
    assert "licence" not in Files.not_identity and "fields" not in Files.not_identity


# Folders that are out to hurt


def test_what_was_swapped_for_something_else_after_it_was_listed_is_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("root:x:0:0")
    folder = tmp_path / "in"
    folder.mkdir()
    source = Files(paths=(str(folder),))
    for name in ("fifo", "link", "folder", "gone"):
        (folder / name).write_text(PROSE)
    files = {file.path: file for file in source.files()}
    for path in files:
        (folder / path).unlink()
    os.mkfifo(folder / "fifo")
    (folder / "link").symlink_to(secret)
    (folder / "folder").mkdir()
    begun = time.monotonic()
    said = {}
    for path, file in files.items():
        with pytest.raises(Unreadable) as caught, source.open(file):
            raise AssertionError(path)
        said[path] = caught.value.reason
    assert said == {"fifo": "fifo", "link": "symlink", "folder": "folder", "gone": "unreadable"}
    assert time.monotonic() - begun < 1


def test_devices_and_links_to_them_are_never_opened(tmp_path: Path) -> None:
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "good.txt").write_text(PROSE)
    wanted = {"zero": "symlink_outside_root", "good.txt": ""}
    if os.geteuid() == 0:
        try:
            os.mknod(tmp_path / "null.txt", stat.S_IFCHR | 0o666, os.makedev(1, 3))
            wanted["null.txt"] = "device"
        except PermissionError:  # a container may forbid it even to root
            wanted.pop("null.txt", None)
    assert {file.path: file.reject_reason for file in find([str(tmp_path)])} == wanted
    with pytest.raises(Unreadable, match="device"), Files().open(SourceFile("zero", Path("/dev/zero"))):
        raise AssertionError


def test_links_that_lead_in_circles_or_out_are_named(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    (root / "a").mkdir(parents=True)
    outside.mkdir()
    (outside / "x.txt").write_text("not yours")
    (root / "good.txt").write_text(PROSE)
    for name, target in {
        "a/up": "..", "a/ping": "pong", "a/pong": "ping", "a/out": "../../outside", "a/file_out": "../../outside/x.txt",
        "a/detour": "../../root/../outside/x.txt", "a/in": "../good.txt", "a/" + "n" * 200: "x" * 3000,
    }.items():  # fmt: skip
        (root / name).symlink_to(target)
    found = {file.path: file.reject_reason for file in find([str(root)])}
    assert found == {
        "good.txt": "", "a/up": "symlink_loop", "a/ping": "symlink_loop", "a/pong": "symlink_loop",
        "a/out": "symlink_outside_root", "a/file_out": "symlink_outside_root", "a/detour": "symlink_outside_root",
        "a/in": "", "a/" + "n" * 200: "unreadable",
    }  # fmt: skip


def test_a_folder_deeper_than_any_path_is_noted_and_the_rest_is_read(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text(PROSE)
    handle = os.open(tmp_path, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=handle)
        deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = deeper
    os.close(handle)
    found = list(find([str(tmp_path)]))
    assert [file.reject_reason for file in found] == ["", "unreadable_folder"]
    assert found[1].detail == "File name too long"


def test_names_of_any_bytes_are_read_and_spelled(tmp_path: Path, ingested: Callable[..., Built]) -> None:
    for name in (
        b"new\nline.txt",
        b"\xff\xfe.txt",
        "größe.txt".encode(),
        b"-rf.txt",
        b" .txt",
        b"a;b$(c).txt",
    ):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text(PROSE)
    built = ingested(tmp_path)
    assert built.metrics["documents"] == 6 and "\\xff\\xfe.txt" in built.texts()


def test_every_record_is_counted_whatever_the_mixture(tmp_path: Path, ingested: Callable[..., Built]) -> None:
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "page.html").write_text(f"<!DOCTYPE html><title>x</title><p>{PROSE * 9}</p>")
    (tmp_path / "letter.eml").write_text(f"Subject: x\nFrom: a@b.c\nDate: today\n\n{PROSE}")
    (tmp_path / "zeros.jsonl").write_bytes(bytes(5000))
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    built = ingested(tmp_path, fields={"text": "body"})
    lines = [json.loads(line) for line in (built.path / "sources.jsonl").read_text().splitlines()]
    reasons = built.reasons()
    for line in lines:
        noted = [path for path in reasons if path.split("#")[0] == line["path"]]
        assert line["documents"] or noted, line
    assert sum(line["documents"] for line in lines) == built.metrics["documents"] == 2 * len(FILES) + 2
