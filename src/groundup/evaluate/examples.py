"""All examples of a corpus, and the split into training and held-out examples.

in:  tasks and a documents artifact
out: examples ordered by a hash of their ids; two sets that share no document
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from groundup.core.recipe import Recipe
from groundup.core.registry import plugin_name
from groundup.core.rng import derive_seed, hash_fraction
from groundup.evaluate.tasks import Example, Task
from groundup.text.documents import read_documents

HELD_OUT_SHARE = 0.05
"""Fraction of documents whose questions are held out of training: the same for the align steps and for `evaluate`."""
LIMIT = 100_000
"""Most examples of a corpus; of more, those with the smallest hash are kept."""


def tasks_by_name(tasks: Sequence[Task]) -> dict[str, Task]:
    """Tasks by plugin name, which is the `task` of their examples."""
    return {plugin_name(cast(Recipe, task)): task for task in tasks}


def collect(tasks: Sequence[Task], documents: Path, limit: int = LIMIT) -> list[Example]:
    """The examples of all documents, at most `limit`. Reads one document at a time."""
    heap: list[tuple[int, str, Example]] = []
    for document in read_documents(documents):
        for name, task in tasks_by_name(tasks).items():
            for example in task.examples(document):
                entry = (-derive_seed(example.id), example.id, replace(example, task=name))
                if len(heap) < limit:
                    heapq.heappush(heap, entry)
                elif entry > heap[0]:
                    heapq.heapreplace(heap, entry)
    return [example for _, _, example in sorted(heap, reverse=True)]


def held_out_groups(groups: Iterable[str], share: float) -> set[str]:
    """The groups whose hash is below `share`; with a share between 0 and 1 at least one, and not all."""
    ordered = sorted(set(groups), key=hash_fraction)
    below = sum(hash_fraction(group) < share for group in ordered)
    return set(ordered[: below if share in (0, 1) else min(max(1, below), len(ordered) - 1)])


def split(
    examples: Sequence[Example], held_out_share: float = HELD_OUT_SHARE
) -> tuple[list[Example], list[Example]]:
    """(train, held out) by document: all examples of a document are on one side.

    Documents whose hash is below the share are held out, as in the validation split of `tokenize`: with the same
    share the model has read none of them. If none is below it, the document with the smallest hash is held out.
    """
    held_out = held_out_groups((example.group for example in examples), held_out_share)
    return [e for e in examples if e.group not in held_out], [e for e in examples if e.group in held_out]
