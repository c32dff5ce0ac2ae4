"""Training data of the classifier: files of examples -> deduplicated texts in a shuffled, reproducible order.

in:  one source of files per class, or of labelled files
out: texts as fastText tokens, their labels, and counts of rejected examples

Order and sample follow a hash of the text: they don't depend on how examples are split over files or repeated.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from groundup.text import fasttext_model
from groundup.text.ingest.safe_open import Unreadable
from groundup.text.ingest.types import ExtractedText, Source

POSITIVE, NEGATIVE, LABELLED = "positive", "negative", "labelled"
"""Classes of sources. Labelled sources deliver an example's label in the licence field."""
_BATCH = 1024


@dataclass(frozen=True)
class Examples:
    """Texts in hash order, so that classes are mixed. `labels`, `rejected`: counts by label and by reason."""

    texts: list[str]
    positive: NDArray[np.bool_]
    read: Counter[str]
    in_both: int
    labels: Counter[str]
    rejected: Counter[str]


def gather(sources: Mapping[str, Source], positive_label: str, most: int, seed: int) -> Examples:
    """At most `most` examples per class; texts that occur in both classes are removed."""
    samples = {POSITIVE: _Sample(most), NEGATIVE: _Sample(most)}
    read, labels, rejected = Counter[str](), Counter[str](), Counter[str]()
    for kind, source in sources.items():
        items = _readable(source, rejected)
        while batch := list(islice(items, _BATCH)):
            tokens = fasttext_model.tokens(pa.array([item.text for item in batch], pa.string()))
            for item, text in zip(batch, tokens, strict=True):
                label = item.licence if kind == LABELLED else kind
                if not label:
                    rejected["no_label"] += 1
                    continue
                if kind == LABELLED:
                    labels[label] += 1
                    label = POSITIVE if label.casefold() == positive_label.casefold() else NEGATIVE
                read[label] += 1
                samples[label].add(seed, text)
    positive, negative = samples[POSITIVE].texts, samples[NEGATIVE].texts
    both = positive.keys() & negative.keys()
    keys = sorted((positive.keys() | negative.keys()) - both)
    texts = [positive[key] if key in positive else negative[key] for key in keys]
    is_positive = np.array([key in positive for key in keys], bool)
    return Examples(texts, is_positive, read, len(both), labels, rejected)


class _Sample:
    """The `most` texts with the smallest hashes."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.texts: dict[bytes, str] = {}
        self._largest: list[int] = []

    def add(self, seed: int, text: str) -> None:
        key = hashlib.sha256(f"{seed} {text}".encode()).digest()
        if key in self.texts:
            return
        self.texts[key] = text
        heapq.heappush(self._largest, -int.from_bytes(key))
        if len(self.texts) > self.most:
            del self.texts[(-heapq.heappop(self._largest)).to_bytes(len(key))]


def _readable(source: Source, rejected: Counter[str]) -> Iterator[ExtractedText]:
    """All texts; unreadable items are counted in `rejected`."""
    for file in source.files():
        if file.reject_reason:
            rejected[file.reject_reason] += 1
            continue
        try:
            with source.open(file) as opened:
                for item in source.read(file.path, opened):
                    if isinstance(item, ExtractedText):
                        yield item
                    elif item.outcome == "rejected":
                        rejected[item.reason] += 1
        except Unreadable as error:
            rejected[error.reason] += 1
