"""Step `names`: replaces names of people by `<PERSON>`. Optional and slow: a spaCy pipeline reads every word.

in:  documents
out: changes with `redacted`; the number of names

spaCy (https://spacy.io) is the extra `groundup[names]`. Trained pipelines are separate packages that the user
installs (`python -m spacy download en_core_web_sm`) or keeps in a folder; nothing is downloaded here.
"""

import importlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from pydantic import Field

from groundup.core.errors import BlueprintError
from groundup.core.recipe import Recipe
from groundup.text.batch import DocumentBatch
from groundup.text.curate.types import FilterResult
from groundup.text.pii import Range, replace

PLACEHOLDER = "<PERSON>"
PIECE = 100_000
"""Characters processed at a time: spaCy needs about 10 kB of memory for each."""
_NOT_NEEDED = ("tagger", "parser", "senter", "morphologizer", "attribute_ruler", "lemmatizer", "textcat")


class Names(Recipe):
    """The spaCy pipeline, and its labels of people."""

    pipeline: str = Field(
        default="en_core_web_sm",
        description="installed spaCy pipeline with named entities, or the folder of one",
    )
    labels: tuple[str, ...] = Field(
        default=("PERSON", "PER"),
        description="entity labels to replace; spaCy's models use one of these",
    )

    def apply(self, batch: DocumentBatch) -> FilterResult:
        """Replace every person's name. Raises BlueprintError if spaCy or its pipeline isn't installed."""
        ranges: list[list[Range]] = [[] for _ in range(batch.rows)]
        pieces = ((piece, (row, at)) for row, text in enumerate(batch.texts) for at, piece in _pieces(text))
        for document, (row, at) in _load(self.pipeline).pipe(pieces, as_tuples=True):
            ranges[row] += [
                (at + entity.start_char, at + entity.end_char)
                for entity in document.ents
                if entity.label_ in self.labels
            ]
        counts = np.array([len(matches) for matches in ranges], dtype=np.float64)
        return FilterResult(
            reason=["redacted" if ranges else None for ranges in ranges],
            value=[float(len(ranges)) if ranges else None for ranges in ranges],
            threshold=[None] * batch.rows,
            text=[
                replace(text, [(*at, PLACEHOLDER) for at in ranges]) if ranges else None
                for text, ranges in zip(batch.texts, ranges, strict=True)
            ],
            metrics={"names": counts},
        )


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """Pieces of a text with their start, split at lines, or at white space in very long ones."""
    at = 0
    while len(text) - at > PIECE:
        end = (
            max(text.rfind("\n", at, at + PIECE), text.rfind(" ", at + PIECE // 2, at + PIECE)) + 1
            or at + PIECE
        )
        yield at, text[at:end]
        at = end
    yield at, text[at:]


@lru_cache(2)
def _load(pipeline: str) -> Any:
    try:
        spacy = importlib.import_module("spacy")
    except ImportError:
        raise BlueprintError(
            "The step `names` needs spaCy, which isn't installed. Run `pip install 'groundup[names]'`, "
            "or take the step out of [[curate.steps]]."
        ) from None
    try:
        return spacy.load(pipeline, exclude=list(_NOT_NEEDED))
    except OSError:
        raise BlueprintError(
            f"The step `names` has no spaCy pipeline `{pipeline}`: neither a package that is installed nor a folder. "
            f"Run `python -m spacy download {pipeline}`, or set `pipeline` to one that is here."
        ) from None
