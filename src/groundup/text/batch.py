"""A batch of documents as arrays, with derived arrays computed once and shared by all steps.

in:  a table of documents (DOCUMENT_SCHEMA)
out: concatenated bytes, words, lines, and a mask of source code
"""

import re
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from groundup.text.documents import strings
from groundup.text.segment import (
    Bytes,
    Ints,
    SpanGroups,
    Spans,
    lines,
    paragraphs,
    plain_words,
    trimmed_lines,
    words,
)
from groundup.text.unicode_classes import content

CODE = re.compile(
    r"\.(pyi?|[ch]|cc|[ch]pp|cu|java|[jt]sx?|go|rs|rb|php|sh|sql|swift|kt|scala|cs|lua|r|jl|pl|hs|mli?|exs?|erl|clj"
    r"|el|lisp|dart|zig|nim|vue|svelte|fsx?|f90|mm?|sol|tf|ps1|bat|proto|groovy|gradle|cmake|css|s[ac]ss|less|xml|json"
    r"|toml|ya?ml|cfg|ini)(#\w+)*$",
    re.IGNORECASE,
)
"""Paths of source code, including their parts (`big.py#part2`)."""


class DocumentBatch:
    """Documents with lazily computed arrays of their texts. A step that changes texts creates a new batch."""

    def __init__(self, documents: pa.Table) -> None:
        self.documents = documents
        self.rows: int = documents.num_rows

    def strings(self, column: str) -> list[str]:
        """A column as a list."""
        return strings(self.documents, column)

    @cached_property
    def texts(self) -> list[str]:
        """[rows] texts as Python strings."""
        return self.strings("text")

    @cached_property
    def text(self) -> Any:
        """[rows] texts as one Arrow array."""
        column = self.documents.column("text")
        return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)

    @cached_property
    def data(self) -> Bytes:
        """UTF-8 bytes of all texts, concatenated."""
        return _buffers(self.text)[0]

    @cached_property
    def offsets(self) -> Ints:
        """[rows + 1]: start of each text in `data`."""
        return _buffers(self.text)[1]

    @cached_property
    def bytes(self) -> Ints:
        """[rows]: bytes per text."""
        return np.diff(self.offsets)

    @cached_property
    def chars(self) -> Ints:
        """[rows]: characters per text."""
        return np.asarray(pc.utf8_length(self.text).to_numpy(zero_copy_only=False), dtype=np.int64)

    @cached_property
    def words(self) -> Spans:
        """Words separated by white space, as web-page rules count them."""
        return words(self.data, self.offsets)

    @cached_property
    def lines(self) -> Spans:
        """Non-empty lines."""
        return lines(self.data, self.offsets)

    @cached_property
    def trimmed_lines(self) -> SpanGroups:
        """Lines with at least one word, without surrounding white space, as rules count lines."""
        return trimmed_lines(self.words)

    @cached_property
    def paragraphs(self) -> SpanGroups:
        """Paragraphs separated by blank lines, without surrounding white space."""
        return paragraphs(self.words)

    @cached_property
    def plain_words(self) -> Spans:
        """Lower-cased words without punctuation, for deduplication and decontamination."""
        return plain_words(*_buffers(pc.utf8_lower(self.text)))

    @cached_property
    def is_code(self) -> NDArray[np.bool_]:
        """[rows]: whether the path is that of source code, which rules for prose skip.

        URLs (`https://.../index.php`) are pages, whatever their suffix.
        """
        paths = self.strings("path")
        return np.array(["://" not in path and CODE.search(path) is not None for path in paths], dtype=bool)

    @cached_property
    def content(self) -> Bytes:
        """[bytes]: LETTER or DIGIT for the first byte of a letter or digit, else 0."""
        return content(self.data)

    @cached_property
    def letters_per_word(self) -> Ints:
        """[rows]: 1; for texts mostly in a script without spaces, the mean number of letters per word."""
        letters = self.words.begins_in("unspaced")
        mean = self.words.per_document(np.maximum(letters, 1)) / np.maximum(self.words.counts, 1)
        return np.where(self.mostly(letters > 0), np.rint(mean), 1).astype(np.int64)

    @cached_property
    def word_counts(self) -> NDArray[np.float64]:
        """[rows]: words; estimated for scripts without spaces."""
        return self.words.counts / self.letters_per_word

    @cached_property
    def is_unmarked(self) -> NDArray[np.bool_]:
        """[rows]: whether a text is mostly in a script (Thai, Lao) without sentence-ending punctuation."""
        return self.mostly(self.words.begins_in("unmarked") > 0)

    def mostly(self, is_marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """[rows]: whether more than half of each text's words are marked; `is_marked` [words]."""
        return self.words.per_document(is_marked) > self.words.counts / 2

    @cached_property
    def line_ends(self) -> Ints:
        """[rows]: line feeds per text."""
        return self.count(self.data == ord("\n"))

    def count(self, mask: NDArray[np.bool_]) -> Ints:
        """[rows]: True bytes per text; `mask` [bytes]."""
        return np.diff(np.searchsorted(np.flatnonzero(mask), self.offsets))

    def of_prose(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """[rows]: `values` for prose, NaN (which no rule rejects) for source code."""
        return np.where(self.is_code, np.nan, values)


def share(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """part / whole, and 0 where `whole` is 0."""
    shares = np.zeros(len(whole))
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares


def _buffers(texts: Any) -> tuple[Bytes, Ints]:
    """Bytes and offsets of an Arrow string array; offsets start at 0."""
    assert texts.null_count == 0, texts.null_count
    _, offsets, data = texts.buffers()
    width = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    if not len(texts):
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    at = np.frombuffer(offsets, width)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    whole = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    return whole[at[0] : at[-1]], at - at[0]
