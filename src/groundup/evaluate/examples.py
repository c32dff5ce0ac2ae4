"""All examples of a corpus, and which of them are held out.

in:  tasks and a documents artifact
out: examples in an order that is a hash of each one's id; two sets that share no document
"""

import heapq
from collections.abc import Sequence
from pathlib import Path

from groundup.core.rng import derive_seed, hash_fraction
from groundup.evaluate.tasks import Example, Task
from groundup.text.documents import read_documents

HELD_OUT_SHARE = 0.05
"""Share of documents whose questions nothing is taught on. One number for all stages: what `evaluate` asks must be
what the align steps left out."""
LIMIT = 100_000
"""Examples kept of a corpus that gives more: those with the smallest hash."""


def collect(tasks: Sequence[Task], documents: Path, limit: int = LIMIT) -> list[Example]:
    """The examples of all documents, at most `limit`. Reads one document at a time."""
    heap: list[tuple[int, str, Example]] = []
    for document in read_documents(documents):
        for task in tasks:
            for example in task.examples(document):
                entry = (-derive_seed(example.id), example.id, example)
                if len(heap) < limit:
                    heapq.heappush(heap, entry)
                elif entry > heap[0]:
                    heapq.heapreplace(heap, entry)
    return [example for _, _, example in sorted(heap, reverse=True)]


def split(
    examples: Sequence[Example], held_out_share: float = HELD_OUT_SHARE
) -> tuple[list[Example], list[Example]]:
    """(train, held out) by document: a document's examples are all on one side.

    Documents below the share by hash are held out, as in the validation split of `tokenize`, so that with the same
    share the model has read none of them. Where none is below it, the one with the smallest hash is.
    """
    groups = sorted({example.group for example in examples}, key=hash_fraction)
    below = sum(hash_fraction(group) < held_out_share for group in groups)
    kept = set(groups[: min(max(1, below), len(groups) - 1)])
    return [e for e in examples if e.group not in kept], [e for e in examples if e.group in kept]
