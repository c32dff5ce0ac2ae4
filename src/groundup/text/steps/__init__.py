"""Slot: what decides about documents. One file per step; each satisfies `Step`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

# Scripts without spaces between words: there a character counts as a word.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
WORD = rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+"
"""A word as Arrow's regular expressions (RE2) find it."""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """One verdict per document of a table, column by column.

    `reason` is None for a document that passes. With a reason and no replaced `text` it is dropped; with both
    it is kept, changed. `value` and `threshold` are the numbers behind it, `detail` words for the ledger.
    """

    reason: Sequence[str | None]
    value: Sequence[float | None]
    threshold: Sequence[float | None]
    detail: Sequence[str] | None = None
    text: Sequence[str | None] | None = None


class Step(Protocol):
    """Judges documents one batch at a time; what it says of one doesn't depend on the others."""

    def judge(self, documents: pa.Table) -> Verdicts:
        """A verdict for every row of `documents` (DOCUMENT_SCHEMA)."""


class Rules:
    """Several rules over one table: the first one that a document breaks is its reason."""

    def __init__(self, rows: int) -> None:
        self.reason: list[str | None] = [None] * rows
        self.value: list[float | None] = [None] * rows
        self.threshold: list[float | None] = [None] * rows

    def broken(self, reason: str, values: Sequence[float], threshold: float, above: bool = True) -> None:
        """Every document whose value is above (or below) the threshold breaks the rule `reason`."""
        for row, value in enumerate(values):
            if self.reason[row] is None and (value > threshold if above else value < threshold):
                self.reason[row], self.value[row], self.threshold[row] = (
                    reason,
                    float(value),
                    float(threshold),
                )

    def verdicts(self) -> Verdicts:
        """What the rules said."""
        return Verdicts(self.reason, self.value, self.threshold)
