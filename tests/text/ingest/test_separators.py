"""Plain text is divided at separators; a corpus of few files is cut into parts."""

import gzip
from pathlib import Path

import pytest

from format_helpers import OPTIONS, PROSE, read, reasons, texts
from groundup.text.ingest.formats import plain
from groundup.text.ingest.types import ReadOptions
from text_helpers import run_acquire

STORIES = [f"Story {n}.\n\n{PROSE}\nThe end of {n}." for n in range(40)]


def stories(data: bytes, separator: str = OPTIONS.separator, name: str = "a.txt", skip: int = 0) -> list[str]:
    return [text.text for text in texts(read(name, data, ReadOptions(separator=separator), skip))]


@pytest.mark.parametrize("mark", ["<|endoftext|>", "  <|endoftext|>\t", "<|endoftext|>\n<|endoftext|>"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.md", "a"])
def test_lines_of_only_the_separator_divide_documents(mark: str, end: str, name: str) -> None:
    data = f"\n{mark}\n".join(STORIES).replace("\n", end).encode()
    data = gzip.compress(data) if name.endswith(".gz") else data
    items = read(name, data)
    assert [text.text for text in texts(items)] == STORIES and not reasons(items)
    assert [text.position for text in texts(items)] == [str(n) for n in range(1, 41)]
    assert stories(data, name=name, skip=30) == STORIES[30:]


@pytest.mark.parametrize(
    ("data", "separator"),
    [
        (b"one <|endoftext|> two", "<|endoftext|>"),
        (b"one\n<|endoftext|> two\n", "<|endoftext|>"),
        (b"one\n<|endoftext|>\ntwo", ""),
        (b"one\n<|endoftext|>\ntwo", "---"),
    ],
)
def test_other_text_is_one_document_without_a_position(data: bytes, separator: str) -> None:
    (text,) = texts(read("a.txt", data, ReadOptions(separator=separator)))
    assert (text.text, text.position) == (data.decode(), "")


@pytest.mark.parametrize("separator", ["%", "=====", "* * *", "\n\n\n", "[SEP].*"])
def test_any_string_is_a_separator(separator: str) -> None:
    between = separator if "\n" in separator else f"\n{separator}\n"
    assert stories(between.join(STORIES).encode(), separator) == STORIES


def test_blank_lines_and_headings_divide_when_asked() -> None:
    assert stories(b"one\nmore\n\n\ntwo\n \t\nthree\n", "blank-lines") == ["one\nmore", "two", "three"]
    book = "Preface.\n\nCHAPTER I\n\nOne.\n\n## Two\n\nText # no heading\n\nThree\n=====\n\nEnd.\nPart of it."
    assert stories(book.encode(), "headings") == [
        "Preface.", "CHAPTER I\n\nOne.", "## Two\n\nText # no heading", "Three\n=====\n\nEnd.\nPart of it.",
    ]  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", ["<|endoftext|>", "blank-lines", "headings", "\n\n\n"])
def test_a_large_file_is_divided_as_a_small_one(
    encoding: str, separator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    between = {"blank-lines": "\n\n", "headings": "\n# Ü\n"}.get(
        separator, separator if "\n" in separator else f"\n{separator}\n"
    )
    data = between.join(
        f"Größe {n}, viel länger als früher, schön für später." * 3 for n in range(900)
    ).encode(encoding)
    whole = stories(data, separator)
    assert len(whole) == 900
    monkeypatch.setattr(plain, "PIECE_BYTES", 8192)
    assert stories(data, separator) == whole
    assert stories(data, separator, skip=500) == whole[500:]


def test_empty_parts_are_no_documents_and_a_file_of_separators_is_empty() -> None:
    mark = b"<|endoftext|>\n"
    assert stories(mark * 3 + b"one\n" + mark * 2 + b"two\n" + mark) == ["one", "two"]
    assert reasons(read("a.txt", mark * 3)) == [("", "rejected", "empty")]


def test_a_part_that_is_no_text_goes_alone() -> None:
    data = b"one\n<|endoftext|>\n" + b"\x01" * 30 + b"\n<|endoftext|>\n" + PROSE.encode() * 90
    items = read("a.txt", data)
    assert len(texts(items)) == 2 and reasons(items) == [("2", "rejected", "binary")]


# Few files


def novel(paragraphs: int = 400) -> str:
    return "\n\n".join(f"Paragraph {n}. {PROSE * 5}" for n in range(paragraphs)) + "\n"


def test_one_plain_file_is_cut_at_paragraph_ends_into_parts(tmp_path: Path) -> None:
    (tmp_path / "novel.txt").write_text(novel())
    built = run_acquire(tmp_path / "ingest-1", tmp_path / "novel.txt", few_files=8)
    parts = list(built.texts().values())
    assert "".join(parts) == novel() and len(parts) > 50
    assert all(part.endswith("\n\n") for part in parts[:-1])
    assert len(set(built.ids().values())) == len(parts)
    assert built.metrics["changed"] == {"cut_few_files": 1}


def test_a_novel_of_a_few_kilobytes_has_several_parts_and_many_files_are_not_cut(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(novel(12))
    assert len(run_acquire(tmp_path / "ingest-1", tmp_path / "a.txt", few_files=8).texts()) > 2
    for n in range(9):
        (tmp_path / "many" / f"{n}.txt").parent.mkdir(exist_ok=True)
        (tmp_path / "many" / f"{n}.txt").write_text(novel(12))
    assert len(run_acquire(tmp_path / "ingest-2", tmp_path / "many", few_files=8).texts()) == 9
    assert len(run_acquire(tmp_path / "ingest-3", tmp_path / "a.txt", few_files=0).texts()) == 1


def test_rows_and_separated_texts_are_not_cut(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n<|endoftext|>\n".join([novel(20)] * 3))
    assert len(run_acquire(tmp_path / "ingest-1", tmp_path / "a.txt", few_files=8).texts()) == 3
