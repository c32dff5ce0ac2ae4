"""Step `repair`: fixes encoding damage and normalises characters, where this is certain.

in:  documents
out: changes, with the most important repair as reason and all of them in the detail; drops with `nothing_left`
     (texts of only invisible characters)

Mojibake is detected and fixed by ftfy (Speer, https://ftfy.readthedocs.io). Its detection is a regular expression
that Arrow matches over a whole batch, fifty times as fast as Python, so only suspicious lines reach ftfy.
"""

import re
import unicodedata
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from groundup.core.recipe import Recipe
from groundup.text.batch import DocumentBatch
from groundup.text.curate.types import FilterResult, Values

KINDS = {
    "mojibake_repaired": "mojibake",
    "control_chars_dropped": "control_chars",
    "zero_width_dropped": "zero_width",
    "unicode_normalised": "unicode",
    "line_ends_unified": "line_ends",
    "blank_lines_capped": "blank_lines",
}
"""Reasons, most important first, and the metric of each: number of repaired lines (mojibake) or places."""

# Written with the characters themselves, so that they mean the same to Python and to Arrow's RE2.
_LINE_ENDS = "\r\n?|[\x0b\x0c\x85\u2028\u2029]"
_CONTROLS = (
    "\x1b\\[[0-9;]*[a-zA-Z]|[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufff9-\ufffc\ufdd0-\ufdef\ufffe\uffff]"
)
"""Control characters (with the rest of a terminal colour code), interlinear marks, noncharacters."""
_ZERO_WIDTH = "[\xad\u200b\u2060-\u2064\u206a-\u206f\ufeff]"
"""Zero-width characters, except the joiners U+200C and U+200D, which Persian, Indic scripts and emoji need."""
_VERBOSE = re.compile(r"(\[[^]]*\]|\\.)|#.*|\s+")


class Repair(Recipe):
    """Which repairs are made. Mojibake and normalisation skip source code, where such characters may be
    intended.
    """

    mojibake: bool = Field(
        default=True, description="repair text that was decoded with the wrong character set"
    )
    unicode: Literal["NFC", "NFKC", "as_is"] = Field(
        default="NFC",
        description="Unicode normalisation form; NFKC also replaces ligatures, full-width letters ...",
    )
    max_blank_lines: int = Field(
        default=2, ge=0, description="maximum consecutive blank lines; longer runs are shortened"
    )

    def apply(self, batch: DocumentBatch) -> FilterResult:
        """Select texts that may need a repair, and repair them."""
        reason: list[str | None] = [None] * batch.rows
        value: list[float | None] = [None] * batch.rows
        text: list[str | None] = [None] * batch.rows
        detail = [""] * batch.rows
        metrics: dict[str, Values] = {metric: np.zeros(batch.rows) for metric in KINDS.values()}
        for row, (repaired, counts) in self._repairs(batch).items():
            done = [kind for kind in KINDS if counts[kind]]
            if not done:
                continue
            for kind in done:
                metrics[KINDS[kind]][row] = counts[kind]
            detail[row] = ", ".join(f"{kind} {counts[kind]}" for kind in done)
            reason[row], value[row], text[row] = done[0], float(counts[done[0]]), repaired
            if not repaired.strip():
                reason[row], text[row] = "nothing_left", None
        return FilterResult(reason, value, [None] * batch.rows, detail, text, metrics)

    def _repairs(self, batch: DocumentBatch) -> dict[int, tuple[str, dict[str, int]]]:
        """For candidate rows: the repaired text, and the number of repairs of each kind."""
        if not batch.rows:
            return {}
        prose = ~batch.is_code
        bad = _matching(batch.text, _bad()) & prose if self.mojibake else np.zeros(batch.rows, dtype=bool)
        odd = _matching(batch.text, f"{_LINE_ENDS}|{_CONTROLS}|{_ZERO_WIDTH}")
        odd |= _matching(batch.text, self._blank_lines)
        if self.unicode != "as_is":
            for row in np.flatnonzero(~(bad | odd) & prose).tolist():
                odd[row] = not unicodedata.is_normalized(self.unicode, batch.texts[row])
        spoiled = np.flatnonzero(bad).tolist()
        mended = dict(zip(spoiled, _mended([batch.texts[row] for row in spoiled]), strict=True))
        repairs = {}
        for row in np.flatnonzero(bad | odd).tolist():
            text, lines = mended.get(row, (batch.texts[row], 0))
            text, counts = self._repaired(text, bool(prose[row]))
            repairs[row] = text, counts | {"mojibake_repaired": lines}
        return repairs

    def _repaired(self, text: str, is_prose: bool) -> tuple[str, dict[str, int]]:
        """Text after all repairs except mojibake, and the number of repairs by kind."""
        text, ends = re.subn(_LINE_ENDS, "\n", text)
        text, controls = re.subn(_CONTROLS, "", text)
        text, widths = re.subn(_ZERO_WIDTH, "", text)
        formed = text
        if self.unicode != "as_is" and is_prose:
            formed = unicodedata.normalize(self.unicode, text)
        capped, blanks = re.subn(self._blank_lines, "\n" * (self.max_blank_lines + 1), formed)
        return capped, {
            "line_ends_unified": ends,
            "control_chars_dropped": controls,
            "zero_width_dropped": widths,
            "unicode_normalised": int(formed != text),
            "blank_lines_capped": blanks,
        }

    @property
    def _blank_lines(self) -> str:
        return f"\n(?:[ \t]*\n){{{self.max_blank_lines + 1},}}"


def _mended(texts: list[str]) -> list[tuple[str, int]]:
    """Each text with mojibake lines repaired, and their number; lines of one text may need different decodings."""
    if not texts:
        return []
    from ftfy import fix_encoding

    split = [text.split("\n") for text in texts]
    lines = [line for each in split for line in each]
    fixed = list(lines)
    for n in np.flatnonzero(_matching(pa.array(lines, pa.large_string()), _bad())).tolist():
        fixed[n] = fix_encoding(lines[n])
    ends = accumulate(map(len, split), initial=0)
    return [
        ("\n".join(fixed[a:b]), sum(now != was for now, was in zip(fixed[a:b], lines[a:b], strict=True)))
        for a, b in pairwise(ends)
    ]


@lru_cache(1)
def _bad() -> str:
    """ftfy's mojibake expression, without its white space and comments."""
    from ftfy.badness import BADNESS_RE

    return _VERBOSE.sub(r"\1", BADNESS_RE.pattern)


def _matching(texts: Any, pattern: str) -> NDArray[np.bool_]:
    return np.array(pc.match_substring_regex(texts, pattern), dtype=bool)
