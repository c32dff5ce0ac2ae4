"""Exact duplicates: the first of several documents with the same text stays.

in:  documents, in order, batch by batch
out: verdicts that drop every later one with `exact_duplicate`; the detail names the document that stayed

Two texts are the same if they differ in nothing but white space and the way Unicode composes accents (NFC).
"""

import hashlib
import unicodedata

import pyarrow as pa

from groundup.text.documents import strings
from groundup.text.steps import Verdicts


class ExactDuplicates:
    """Remembers the texts it has seen: 16 bytes of SHA-256 and an id for each."""

    def __init__(self) -> None:
        self._first: dict[bytes, str] = {}

    def judge(self, documents: pa.Table) -> Verdicts:
        """A verdict for every row; later batches are compared with this one."""
        reasons: list[str | None] = []
        details: list[str] = []
        ids = strings(documents, "id")
        for identity, text in zip(ids, strings(documents, "text"), strict=True):
            first = self._first.setdefault(text_key(text), identity)
            reasons.append(None if first is identity else "exact_duplicate")
            details.append("" if first is identity else f"same text as {first}")
        nothing: list[float | None] = [None] * len(ids)
        return Verdicts(reasons, nothing, nothing, details)


def text_key(text: str) -> bytes:
    """16 bytes that two texts share exactly if they are the same but for white space and composition."""
    normal = " ".join(unicodedata.normalize("NFC", text).split())
    return hashlib.sha256(normal.encode()).digest()[:16]
