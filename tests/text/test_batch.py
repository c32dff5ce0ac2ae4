"""What a batch knows of its documents, as rows of a table and as bytes."""

import numpy as np
import pyarrow as pa
import pytest

from groundup.text.batch import DocumentBatch, share
from groundup.text.documents import DOCUMENT_SCHEMA


def batch(*texts: str, path: str = "a.txt") -> DocumentBatch:
    blank = dict.fromkeys(DOCUMENT_SCHEMA.names, "")
    return DocumentBatch(
        pa.Table.from_pylist([blank | {"text": text, "path": path} for text in texts], DOCUMENT_SCHEMA)
    )


def test_a_slice_of_a_table_is_a_batch_of_its_own() -> None:
    whole = batch("one", "zwei", "", "trois mots là", "五")
    part = DocumentBatch(whole.documents.slice(1, 3))
    assert part.texts == ["zwei", "", "trois mots là"]
    assert part.data.tobytes().decode() == "zweitrois mots là"
    assert part.offsets.tolist() == [0, 4, 4, 18]
    assert (part.chars.tolist(), part.bytes.tolist()) == ([4, 0, 13], [4, 0, 14])
    assert part.words.counts.tolist() == [1, 0, 3]


def test_a_table_in_several_chunks_is_one_batch() -> None:
    some = batch("a b").documents
    joined = DocumentBatch(pa.concat_tables([some, some.slice(0, 0), some]))
    assert joined.words.counts.tolist() == [2, 2]


def test_a_batch_may_be_empty() -> None:
    nothing = DocumentBatch(DOCUMENT_SCHEMA.empty_table())
    assert nothing.rows == len(nothing.words.start) == len(nothing.trimmed_lines.start) == 0
    assert nothing.letters_per_word.tolist() == nothing.is_code.tolist() == []


@pytest.mark.parametrize(
    "path",
    ["a.py", "src/b.cc", "C.HPP", "d.tsx", "e.py#part2", "lib.rs#part2#x", "data.json", "x.yml", "q.sql"],
)
def test_paths_of_code_are_known(path: str) -> None:
    assert batch("x", path=path).is_code.all()


@pytest.mark.parametrize(
    "path", ["a.txt", "b.md", "page.html", "https://py.example/index.php", "c.pyx.txt", "py", ""]
)
def test_other_paths_are_prose(path: str) -> None:
    known = batch("x", path=path)
    assert not known.is_code.any()
    assert known.of_prose(np.ones(1)).tolist() == [1]
    assert np.isnan(batch("x", path="a.py").of_prose(np.ones(1))).all()


def test_words_of_scripts_without_spaces_are_estimated() -> None:
    texts = batch(
        "我们在海边", "ภาษาไทย", "plain English words", "Python 和 numpy 很 fast", "我们用Python写代码", ""
    )
    assert texts.letters_per_word.tolist() == [2, 4, 1, 1, 2, 1]
    assert texts.word_counts.tolist() == [2.5, 7 / 4, 3, 5, 3.5, 0]
    assert texts.is_unmarked.tolist() == [False, True, False, False, False, False]


def test_plain_words_are_lower_case() -> None:
    words = batch("Größe, ÇA va!").plain_words
    found = zip(words.start, words.end, strict=True)
    assert [words.data[a:b].tobytes().decode() for a, b in found] == ["größe", "ça", "va"]


def test_a_share_of_nothing_is_nothing() -> None:
    assert share(np.array([1, 0]), np.array([4, 0])).tolist() == [0.25, 0]
