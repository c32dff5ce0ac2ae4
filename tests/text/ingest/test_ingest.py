"""Ingest on real folders, friendly and hostile."""

import gzip
import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from groundup.core.errors import DataError
from groundup.core.progress import Reporter
from groundup.core.runtime import Runtime
from groundup.core.stage import StageContext
from groundup.text.documents import read_documents
from groundup.text.ingest.discover import find
from groundup.text.ingest.ingest import Ingest, external_digest, ingest, labelled
from groundup.text.ingest.ingest_task import cut, document_id
from groundup.text.ingest.safe_open import Unreadable, hash_regular
from groundup.text.ingest.sources.files import Files
from text_helpers import Built

NOVELS = Path(__file__).parents[4] / "shared/data/pretrain/novels"
PROSE = "The keeper lit the lamp, and the ships came home. " * 3


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "hostile"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "good.txt").write_text(PROSE)
    (folder / "deep" / "er" / "also.md").write_text("# Lamp\n\n" + PROSE)
    (folder / "binary.bin").write_bytes(bytes(range(256)) * 20)
    (folder / "controls.bin").write_bytes(bytes(range(1, 32)) * 20)
    (folder / "empty.txt").touch()
    (folder / "blank.txt").write_text(" \n\n")
    (folder / "latin.txt").write_bytes("Das Mädchen übt Flöte in Köln.\n".encode("latin-1"))
    (folder / "stray.txt").write_bytes("Größe, Höhe, Länge ".encode() + b"\xff" + PROSE.encode())
    (folder / "utf16.txt").write_bytes(PROSE.encode("utf-16"))
    (folder / "cyrillic.txt").write_bytes("Широкая электрификация".encode("koi8-r"))
    (folder / "line.txt").write_text("x" * 3_000_000)
    (folder / "table.parquet").write_bytes(b"PAR1" + b"\x00" * 50)
    (folder / "wiki.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfd" + b"\x00" * 50)
    (folder / "broken_link").symlink_to("nowhere")
    (folder / "loop_link").symlink_to("loop_link")
    (folder / "deep" / "up").symlink_to("..")
    (folder / "outside_link").symlink_to("/etc/hostname")
    (folder / "inside_link").symlink_to("good.txt")
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
    (folder / "bomb.txt.gz").write_bytes(gzip.compress(b"a\n" * 10_000_000))
    whole = gzip.compress("".join(f"Line {n} of a tale.\n" for n in range(9999)).encode())
    (folder / "cut.txt.gz").write_bytes(whole[: len(whole) // 2])
    lines = [
        json.dumps({"text": PROSE}),
        "{broken",
        json.dumps({"other": 1}),
        json.dumps({"text": "Fin. \ud800"}),
    ]
    (folder / "some.jsonl").write_text("\n".join(lines))
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main")
    yield folder


def test_a_hostile_folder_goes_through_and_the_rejects_log_names_each(
    hostile: Path, ingested: Callable[..., Any]
) -> None:
    built = ingested(hostile)
    reasons = built.reasons()
    assert reasons == {
        "binary.bin": "binary",
        "controls.bin": "binary",
        "empty.txt": "empty",
        "blank.txt": "empty",
        "latin.txt": "decoded_as_cp1252",
        "stray.txt": "invalid_utf8_replaced",
        "utf16.txt": "decoded_as_utf_16",
        "cyrillic.txt": "decoded_as_koi8_u",
        "line.txt": "line_too_long",
        "table.parquet": "damaged_parquet",
        "wiki.jsonl.zst": "damaged_zstd",
        "broken_link": "broken_symlink",
        "loop_link": "symlink_loop",
        "deep/up": "symlink_loop",
        "outside_link": "symlink_outside_root",
        "fifo": "fifo",
        "socket": "socket",
        "bomb.txt.gz": "expands_too_much",
        "cut.txt.gz": "damaged_gzip",
        "some.jsonl#2": "bad_json",
        "some.jsonl#3": "no_text_field",
        "some.jsonl#4": "lone_surrogates_replaced",
        ".git/": "version_control",
    }
    texts = built.texts()
    kept = {"good.txt", "inside_link", "deep/er/also.md", "cut.txt.gz"}
    kept |= {"cyrillic.txt", "latin.txt", "stray.txt", "utf16.txt"}
    assert set(texts) == kept | {"some.jsonl#1", "some.jsonl#4"}
    assert texts["latin.txt"] == "Das Mädchen übt Flöte in Köln.\n"
    assert texts["utf16.txt"] == PROSE
    assert texts["stray.txt"].count("\ufffd") == 1
    assert texts["cut.txt.gz"].startswith("Line 0 of a tale.\nLine 1")
    assert built.metrics["documents"] == len(texts)
    assert built.metrics["files_rejected"]["binary"] == 2
    assert built.metrics["records_rejected"] == {"bad_json": 1, "no_text_field": 1}


def test_every_file_has_its_fate_in_sources_jsonl(hostile: Path, ingested: Callable[..., Any]) -> None:
    built = ingested(hostile)
    lines = [json.loads(line) for line in (built.path / "sources.jsonl").read_text().splitlines()]
    asides = {line["path"]: line["rejected"] for line in lines if "rejected" in line}
    documents = {line["path"]: line["documents"] for line in lines}
    assert asides["fifo"] == "fifo" and documents["some.jsonl"] == 2
    assert all((line["documents"] > 0) != ("rejected" in line) for line in lines)
    assert sum(documents.values()) == built.metrics["documents"]


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything, so it becomes somebody else for a while."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_what_nobody_may_read_has_a_reason() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "open.txt").write_text(PROSE)
        (folder / "closed.txt").write_text(PROSE)
        (folder / "closed.txt").chmod(0)
        (folder / "shut").mkdir(mode=0)
        with as_nobody():
            found = {file.path: file for file in find([name])}
            with pytest.raises(Unreadable, match="unreadable") as caught:
                hash_regular(Path(found["closed.txt"].location), 1 << 20)
        assert caught.value.detail == "Permission denied"
        assert {path: file.reject_reason for path, file in found.items()} == {
            "open.txt": "",
            "closed.txt": "",
            "shut/": "unreadable_folder",
        }
        (folder / "shut").chmod(0o700)


def test_a_file_above_the_limit_is_not_read(tmp_path: Path, ingested: Callable[..., Any]) -> None:
    (tmp_path / "large.html").write_text(PROSE * 100)
    (tmp_path / "small.txt").write_text(PROSE)
    built = ingested(tmp_path, max_file_bytes=1000)
    (entry,) = built.rejects()
    assert (entry.path, entry.outcome, entry.reason, entry.value, entry.threshold) == (
        "large.html",
        "rejected",
        "too_large",
        len(PROSE) * 100,
        1000,
    )


def test_ids_survive_a_move_of_the_folder_and_an_edit_of_the_text(
    tmp_path: Path, ingested: Callable[..., Any]
) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "a.txt").write_text(PROSE)
    (old / "b.txt").write_text(PROSE.upper())
    before, digest = ingested(old), external_digest(Ingest(sources=(Files(paths=(str(old),)),)))
    new = old.rename(tmp_path / "new")
    moved = ingested(new)
    assert moved.ids() == before.ids()
    assert external_digest(Ingest(sources=(Files(paths=(str(new),)),))) == digest
    (new / "b.txt").write_text(PROSE.lower())
    edited = ingested(new)
    assert edited.ids() == before.ids()
    assert {path for path, text in edited.texts().items() if text != before.texts()[path]} == {"b.txt"}
    assert external_digest(Ingest(sources=(Files(paths=(str(new),)),))) != digest


def test_the_same_files_give_the_same_bytes(hostile: Path, ingested: Callable[..., Any]) -> None:
    one, two = ingested(hostile), ingested(hostile)
    assert len(one.files()) == 4 and one.files() == two.files()


def test_leftovers_of_an_interrupted_try_do_not_disturb(tmp_path: Path, ingested: Callable[..., Any]) -> None:
    (tmp_path / "a.txt").write_text(PROSE)
    clean = ingested(tmp_path)

    left = tmp_path.parent / "left"
    left.mkdir()
    (left / "documents").mkdir()
    (left / "documents" / "00000-000.parquet").write_bytes(b"PAR1 torn")
    (left / "documents" / "00000-000.parquet.1234abcd.part").write_bytes(b"PAR1 torn")
    work = StageContext(left, Reporter(quiet=True))
    made = Built(left, ingest(Ingest(sources=(Files(paths=(str(tmp_path),)),), few_files=0), Runtime(), work))
    work.close()
    assert made.files() == clean.files()


def test_a_long_text_is_cut_at_paragraphs_and_nothing_is_lost(
    tmp_path: Path, ingested: Callable[..., Any]
) -> None:
    text = "\n\n".join(f"Paragraph {n}: " + "größer " * 20 for n in range(200))
    (tmp_path / "novel.txt").write_text(text)
    built = ingested(tmp_path, max_document_bytes=4096)
    pieces = built.texts()
    assert "".join(pieces.values()) == text
    assert list(pieces)[:2] == ["novel.txt#part1", "novel.txt#part2"]
    assert all(piece.startswith("Paragraph") and len(piece.encode()) <= 4096 for piece in pieces.values())
    assert built.ids()["novel.txt#part2"] == document_id("files", "novel.txt", "/2")
    (entry,) = built.rejects()
    assert (entry.outcome, entry.reason, entry.detail) == ("changed", "cut", f"into {len(pieces)} documents")


@pytest.mark.parametrize("text", ["€" * 2000, "ab " * 2000, "a\n" * 1500, "x" * 5000])
def test_cutting_never_splits_a_character(text: str) -> None:
    pieces = cut(text, 1024)
    assert "".join(pieces) == text and max(len(piece.encode()) for piece in pieces) <= 1024


def test_two_sources_of_a_kind_keep_their_ids_apart(tmp_path: Path) -> None:

    (tmp_path / "a.txt").write_text(PROSE)
    twice = Ingest(sources=(Files(paths=(str(tmp_path),)), Files(paths=(str(tmp_path),), licence="CC0")))
    out = tmp_path.parent / "twice"
    ingest(twice, Runtime(), StageContext(out, Reporter(quiet=True)))
    found = list(read_documents(out))
    assert [document.source for document in found] == ["files", "files-2"]
    named = [Files(name=name) for name in ("", "web", "web", "files-2", "")]
    assert [label for label, _ in labelled(Ingest(sources=tuple(named)))] == [
        "files",
        "web",
        "web-2",
        "files-2",
        "files-3",
    ]
    assert len({document.id for document in found}) == 2 and found[1].licence == "CC0"


def test_a_path_that_matches_nothing_is_refused_before_anything_runs(tmp_path: Path) -> None:
    for wrong in (tmp_path / "missing", tmp_path / "*.md", tmp_path):
        with pytest.raises(DataError, match="paths: '.*" + wrong.name.replace("*", r"\*")):
            external_digest(Ingest(sources=(Files(paths=(str(wrong),)),)))
    with pytest.raises(DataError, match="needs paths"):
        external_digest(Ingest(sources=(Files(),)))


def test_a_folder_without_any_document_says_why(tmp_path: Path, ingested: Callable[..., Any]) -> None:
    (tmp_path / "a.bin").write_bytes(b"\x00" * 9)
    (tmp_path / "b.txt").touch()
    with pytest.raises(DataError, match=r"no document in 2 files.*binary \(1\), empty \(1\)"):
        ingested(tmp_path)


def test_gzipped_json_lines_of_the_novels_are_read(ingested: Callable[..., Any]) -> None:
    if not NOVELS.is_dir():
        pytest.skip(f"no {NOVELS}")
    built = ingested(NOVELS / "novels-00000.jsonl.gz")
    assert built.metrics["documents"] == 273 and not built.rejects()
    assert next(iter(built.texts())) == "novels-00000.jsonl.gz#1"


def test_what_was_read_has_the_digest_of_the_fingerprint(hostile: Path, work: StageContext) -> None:
    recipe = Ingest(sources=(Files(paths=(str(hostile),)),))
    before = external_digest(recipe)
    ingest(recipe, Runtime(workers=1), work)
    assert work.external_read == before
