"""Step: private data is replaced by what it was: `<EMAIL>`, `<PHONE>`, `<IP_ADDRESS>` ...

in:  documents
out: changes with `redacted`, or drops with `too_much_private_data`; how often each kind was found

How each kind is told from other numbers stands in `text/pii`; how much of it is found is measured by
`doctor/synthetic_pii` on planted secrets, and how much is replaced wrongly by `benchmarks/privacy.py`.
"""

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, field_validator

from groundup.core.recipe import Recipe
from groundup.text.batch import DocumentBatch
from groundup.text.curate.types import FilterResult, Values
from groundup.text.pii import (
    KINDS,
    Finder,
    Kind,
    mail,
    money,
    national,
    network,
    phone,
    replace,
    secrets,
    to_ascii_widths,
)

PLACEHOLDERS: dict[Kind, str] = {
    "api_key": "<API_KEY>",
    "email": "<EMAIL>",
    "iban": "<IBAN>",
    "credit_card": "<CREDIT_CARD>",
    "national_id": "<NATIONAL_ID>",
    "ip": "<IP_ADDRESS>",
    "phone": "<PHONE>",
}
REGIONS = ("US", "GB", "FR", "DE", "ES", "IT", "IN", "BR", "AU", "JP")
_Finding = tuple[int, int, Kind]


class Privacy(Recipe):
    """Which kinds of private data are looked for, and what happens to documents that have some."""

    version: ClassVar[int] = 2

    kinds: tuple[Kind, ...] = Field(default=KINDS, description="what is looked for; all by default")
    regions: tuple[str, ...] = Field(
        default=REGIONS,
        description="phone numbers without + are known as written here, after a word such as `tel`, and as "
        "555-123-4567; with +, from everywhere",
    )
    countries: tuple[str, ...] = Field(
        default=(), description="whose identity numbers; none = all that are known"
    )
    reserved: bool = Field(
        default=True,
        description="also what is reserved for nobody in particular: e-mail at example.com, IP addresses of local "
        "networks (192.168.0.1) and of documentation; never 127.0.0.1, 0.0.0.0 and masks",
    )
    mode: Literal["redact", "drop"] = Field(
        default="redact",
        description="drop: documents with more than `at_most` findings go, in the others they go",
    )
    at_most: int = Field(default=0, ge=0, description="findings that a document may have in the mode drop")

    def without_effect(self) -> dict[str, str]:
        """See `Strict`."""
        unused = {} if self.mode == "drop" else {"at_most": 'mode = "redact" drops no document'}
        if "phone" not in self.kinds:
            unused["regions"] = "kinds has no phone"
        if "national_id" not in self.kinds:
            unused["countries"] = "kinds has no national_id"
        if not {"email", "ip"} & set(self.kinds):
            unused["reserved"] = "kinds has neither email nor ip"
        return unused

    @field_validator("regions")
    @classmethod
    def _known_regions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        phone.phones(value)
        return value

    @field_validator("countries")
    @classmethod
    def _known_countries(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        national.ids(value)
        return value

    def apply(self, batch: DocumentBatch) -> FilterResult:
        """Find, count by kind, and replace."""
        matches = self.find(batch)
        metrics: dict[str, Values] = {kind: np.zeros(batch.rows) for kind in self.kinds}
        reason: list[str | None] = [None] * batch.rows
        value: list[float | None] = [None] * batch.rows
        threshold: list[float | None] = [None] * batch.rows
        detail = [""] * batch.rows
        text: list[str | None] = [None] * batch.rows
        for row, findings in matches.items():
            counts = Counter(kind for _, _, kind in findings)
            for kind, count in counts.items():
                metrics[kind][row] = count
            reason[row], value[row] = "redacted", float(len(findings))
            detail[row] = ", ".join(f"{kind} {counts[kind]}" for kind in KINDS if kind in counts)
            if self.mode == "drop" and len(findings) > self.at_most:
                reason[row], threshold[row] = "too_much_private_data", float(self.at_most)
            else:
                text[row] = replace(
                    batch.texts[row], ((start, end, PLACEHOLDERS[kind]) for start, end, kind in findings)
                )
        return FilterResult(reason, value, threshold, detail, text, metrics)

    def find(self, batch: DocumentBatch) -> dict[int, list[_Finding]]:
        """(start, end, kind) of all that is private, in characters and in order, of the rows that have some."""
        matches: dict[int, list[_Finding]] = {}
        if not batch.rows:
            return matches
        texts = [to_ascii_widths(text) for text in batch.texts]
        finders = _finders(self.kinds, self.regions, self.countries, self.reserved)
        changed = any(plain is not text for plain, text in zip(texts, batch.texts, strict=True))
        column = pa.array(texts, pa.large_string()) if changed else batch.text
        for finder, rows in _hinted(column, finders):
            for row in rows:
                ranges = [(start, end, finder.kind) for start, end in finder.find(texts[row])]
                if ranges:
                    matches.setdefault(row, []).extend(ranges)
        return {row: _disjoint(matches[row]) for row in sorted(matches)}


def _hinted(texts: Any, finders: tuple[Finder, ...]) -> Iterator[tuple[Finder, list[int]]]:
    """Each finder with the rows that match all its hints. A first hint that finders share is matched once."""
    whole = {hint: _matching(texts, hint) for hint in {finder.hints[0]: None for finder in finders}}
    for finder in finders:
        rows = whole[finder.hints[0]]
        for hint in finder.hints[1:]:
            rows = rows[_matching(texts.take(pa.array(rows)), hint)]
        yield finder, rows.tolist()


def _matching(texts: Any, hint: str) -> NDArray[np.int64]:
    return np.flatnonzero(np.asarray(pc.match_substring_regex(texts, hint)))


@lru_cache(16)
def _finders(
    kinds: tuple[Kind, ...], regions: tuple[str, ...], countries: tuple[str, ...], reserved: bool
) -> tuple[Finder, ...]:
    every = (
        *secrets.keys(),
        *mail.emails(reserved),
        *phone.phones(regions),
        *network.ips(reserved),
        *money.cards(),
        *money.ibans(),
        *national.ids(countries),
    )
    return tuple(finder for finder in every if finder.kind in kinds)


def _disjoint(findings: list[_Finding]) -> list[_Finding]:
    """Overlapping findings become one, of the kind that stands first in KINDS."""
    whole: list[_Finding] = []
    for start, end, kind in sorted(findings):
        if whole and start < whole[-1][1]:
            first, last, other = whole[-1]
            whole[-1] = first, max(last, end), min(kind, other, key=KINDS.index)
        else:
            whole.append((start, end, kind))
    return whole
