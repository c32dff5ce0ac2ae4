"""Planted secrets: how much of what is private a step really takes out, measured on text into which it was put.

in:  real texts, a seed
out: the texts with one secret in each, what and where it is; then, for a step, the recall per kind

The secrets are made by what issues them (check digits of python-stdnum, example numbers of libphonenumber, the
tokens' published make-up) and written as people write them, in prose, code, Markdown, tables and other scripts.
Nothing here knows the expressions that look for them.
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
"""Characters of a real text around a secret."""
PIECE = 5
"""A secret counts as found when no run of this many of its characters is left."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A secret of one kind, and the characters of its text in which it stands."""

    kind: str
    secret: str
    start: int


@dataclass(frozen=True, slots=True)
class Planted:
    """Texts, and the one secret in each."""

    texts: list[str]
    canaries: list[Canary]


def plant(
    texts: Sequence[str], seed: int, per_kind: int = 200, regions: Sequence[str] = ("US", "GB")
) -> Planted:
    """Excerpts of `texts`, in turn, each with one secret at a place that depends on the seed alone.

    regions: whose phone numbers are also written without + (give those of the step).
    """
    planted = Planted([], [])
    for kind, writer in _writers(tuple(regions)).items():
        for number in range(per_kind):
            rng = random.Random(derive_seed(seed, "canary", kind, number))
            text = texts[len(planted.texts) % len(texts)] if texts else ""
            first = rng.randrange(max(1, len(text) - EXCERPT))
            excerpt = text[first : first + EXCERPT]
            secret, frames = writer(rng)
            before, _, after = rng.choice(frames).partition("{}")
            at = excerpt.find(" ", rng.randrange(len(excerpt) + 1))
            at = len(excerpt) if at < 0 else at
            planted.texts.append(f"{excerpt[:at]} {before}{secret}{after}{excerpt[at:]}")
            planted.canaries.append(Canary(kind, secret, at + 1 + len(before)))
    return planted


def recall(step: Step, planted: Planted) -> dict[str, float]:
    """The share of each kind's secrets of which the step leaves nothing; a dropped text leaves nothing."""
    blank = dict.fromkeys(DOCUMENT_SCHEMA.names, "")
    rows = [blank | {"id": str(row), "text": text} for row, text in enumerate(planted.texts)]
    said = step.apply(DocumentBatch(pa.Table.from_pylist(rows, DOCUMENT_SCHEMA)))
    found, planned = Counter[str](), Counter(canary.kind for canary in planted.canaries)
    for row, canary in enumerate(planted.canaries):
        changed = said.text[row] if said.text is not None else None
        if said.reason[row] is not None and not (changed and _is_left(canary, planted.texts[row], changed)):
            found[canary.kind] += 1
    return {kind: found[kind] / planned[kind] for kind in planned}


def _is_left(canary: Canary, before: str, after: str) -> bool:
    """Whether a piece of the secret is in the changed text that wasn't in the text around it."""
    around = before[: canary.start] + "\n" + before[canary.start + len(canary.secret) :]
    ends = range(PIECE, max(PIECE, len(canary.secret)) + 1)
    pieces = {canary.secret[max(0, end - PIECE) : end] for end in ends}
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
