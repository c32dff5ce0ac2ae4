"""Synthetic PII: planted in real texts to measure the recall of a privacy step.

in:  real texts, a seed
out: the texts, each with one planted value and its position; for a step, the recall per kind

Values are made by their issuers' rules (check digits of python-stdnum, example numbers of libphonenumber, published
token formats) and written as people write them, in prose, code, Markdown, tables and other scripts. The generator
shares no expression with the step that it measures.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from groundup.core.rng import derive_seed
from groundup.doctor.synthetic_pii import keys, numbers, people
from groundup.doctor.synthetic_pii.writing import Writer
from groundup.text.batch import DocumentBatch
from groundup.text.curate.types import Step
from groundup.text.documents import DOCUMENT_SCHEMA

EXCERPT = 3000
"""Characters of real text around a planted value."""
PIECE = 5
"""A value counts as redacted when no run of this many of its characters is left."""


@dataclass(frozen=True, slots=True)
class SyntheticPii:
    """A planted value of one kind, and the position of its first character in the text."""

    kind: str
    value: str
    start: int


@dataclass(frozen=True, slots=True)
class PlantedTexts:
    """Texts, and the one value planted in each."""

    texts: list[str]
    pii: list[SyntheticPii]


def plant(
    texts: Sequence[str], seed: int, per_kind: int = 200, regions: Sequence[str] = ("US", "GB")
) -> PlantedTexts:
    """Excerpts of `texts`, in turn, each with one value at a position that depends on the seed alone.

    regions: whose phone numbers are also written without + (pass those of the step).
    """
    planted = PlantedTexts([], [])
    for kind, writer in _writers(tuple(regions)).items():
        for number in range(per_kind):
            rng = random.Random(derive_seed(seed, "canary", kind, number))
            text = texts[len(planted.texts) % len(texts)] if texts else ""
            first = rng.randrange(max(1, len(text) - EXCERPT))
            excerpt = text[first : first + EXCERPT]
            value, frames = writer(rng)
            before, _, after = rng.choice(frames).partition("{}")
            at = excerpt.find(" ", rng.randrange(len(excerpt) + 1))
            at = len(excerpt) if at < 0 else at
            planted.texts.append(f"{excerpt[:at]} {before}{value}{after}{excerpt[at:]}")
            planted.pii.append(SyntheticPii(kind, value, at + 1 + len(before)))
    return planted


def recall(step: Step, planted: PlantedTexts) -> dict[str, float]:
    """Per kind the share of values of which the step leaves nothing; a dropped text leaves nothing."""
    blank = dict.fromkeys(DOCUMENT_SCHEMA.names, "")
    rows = [blank | {"id": str(row), "text": text} for row, text in enumerate(planted.texts)]
    result = step.apply(DocumentBatch(pa.Table.from_pylist(rows, DOCUMENT_SCHEMA)))
    redacted, total = Counter[str](), Counter(item.kind for item in planted.pii)
    for row, item in enumerate(planted.pii):
        changed = result.text[row] if result.text is not None else None
        if result.reason[row] is not None and not (changed and _is_left(item, planted.texts[row], changed)):
            redacted[item.kind] += 1
    return {kind: redacted[kind] / total[kind] for kind in total}


def _is_left(item: SyntheticPii, before: str, after: str) -> bool:
    """Whether a piece of the value is in the changed text that wasn't in the text around it."""
    around = before[: item.start] + "\n" + before[item.start + len(item.value) :]
    ends = range(PIECE, max(PIECE, len(item.value)) + 1)
    pieces = {item.value[max(0, end - PIECE) : end] for end in ends}
    return any(piece in after and piece not in around for piece in pieces)


def _writers(regions: tuple[str, ...]) -> dict[str, Writer]:
    return {
        "email": people.email,
        "obfuscated_email": people.obfuscated_email,
        "phone": lambda rng: people.phone(rng, regions),
        "ip": numbers.ip,
        "credit_card": numbers.card,
        "iban": numbers.iban,
        "api_key": keys.api_key,
        "national_id": numbers.national_id,
    }
