"""Mixture of sources and languages, and the order of documents.

in:  source, language and size per document; weights, epoch caps, a temperature, a seed
out: copies of each document, and a sort key for every copy

Everything is a function of the documents' ids and the seed, independent of workers and shards.
Temperature sampling across languages: Conneau et al. 2020 (XLM-R), https://arxiv.org/abs/1911.02116, section 3.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from groundup.core.recipe import Recipe
from groundup.text.segment import Hashes, mix

Floats = NDArray[np.float64]


class Mix(Recipe):
    """Mixture of the corpus. By default every document occurs once, in the order of ingest."""

    temperature: float = Field(
        default=1.0,
        ge=1,
        description="above 1, small languages are upsampled: size ** (1 / temperature)",
    )
    max_epochs: float = Field(
        default=1.0,
        gt=0,
        description="maximum repetitions of documents of a source without a cap of its own",
    )
    total_bytes: int = Field(
        default=0, ge=0, description="size of the corpus; 0 = as large as weights and caps allow"
    )
    shuffle: bool = Field(default=False, description="shuffle documents (seeded), also without weights")
    seed: int = Field(default=0, ge=0, description="seed of sampling and order")
    weights: dict[str, float] = Field(
        default={}, description="weight per source, relative to each other; set with the source"
    )
    caps: dict[str, float] = Field(default={}, description="maximum epochs per source; set with the source")

    def without_effect(self) -> dict[str, str]:
        """See `Strict`."""
        reason = "nothing is mixed: set weights of sources, total_bytes, temperature or shuffle"
        return {} if self.active else dict.fromkeys(("seed", "max_epochs"), reason)

    @property
    def active(self) -> bool:
        """Whether mixing is enabled."""
        return bool(self.weights or self.total_bytes or self.shuffle or self.temperature > 1)


@dataclass(frozen=True)
class MixInput:
    """[documents] each: columns that mixing needs."""

    id: Hashes
    source: NDArray[np.object_]
    language: NDArray[np.object_]
    bytes: NDArray[np.int64]


def epochs(corpus: MixInput, recipe: Mix) -> dict[tuple[str, str], float]:
    """Mean copies of a document for each (source, language).

    A cell's target is its source's weight times its language's share within the source. What a cap removes from one
    cell is distributed over the others in proportion. Sources without a weight, where others have one, are weighted by
    their size.
    """
    cells = sorted(set(zip(corpus.source.tolist(), corpus.language.tolist(), strict=True)))
    number = {cell: at for at, cell in enumerate(cells)}
    which = [number[cell] for cell in zip(corpus.source.tolist(), corpus.language.tolist(), strict=True)]
    have: Floats = np.bincount(which, weights=corpus.bytes, minlength=len(cells)).astype(np.float64)
    target = _targets(cells, have, recipe)
    cap = np.array([recipe.caps.get(source, recipe.max_epochs) for source, _ in cells]) * have
    total = recipe.total_bytes or _largest_total(target, cap, have)
    bytes_per_cell = _fill(target, cap, total)
    return {cell: float(bytes_per_cell[at] / have[at]) if have[at] else 0.0 for cell, at in number.items()}


def _targets(cells: Sequence[tuple[str, str]], have: Floats, recipe: Mix) -> Floats:
    """Share of each cell, before caps."""
    target = np.zeros(len(cells))
    sources = sorted({source for source, _ in cells})
    whole = have.sum()
    for source in sources:
        of_source = np.array([cell[0] == source for cell in cells])
        natural = have[of_source].sum() / whole if whole else 0.0
        weight = recipe.weights.get(source, natural)
        tempered = have[of_source] ** (1 / recipe.temperature)
        target[of_source] = weight * tempered / max(tempered.sum(), 1e-300)
    shares: Floats = target / max(target.sum(), 1e-300)
    return shares


def _largest_total(target: Floats, cap: Floats, have: Floats) -> float:
    """Largest corpus that keeps the targets' proportions within the caps, at most one epoch where no cap allows
    more.
    """
    wanted = target > 0
    return float((cap[wanted] / target[wanted]).min()) if wanted.any() else float(have.sum())


def _fill(target: Floats, cap: Floats, total: float) -> Floats:
    """Bytes per cell: `total` distributed by `target`, none above its cap."""
    filled = np.zeros(len(target))
    free = target > 0
    while free.any() and (left := total - filled.sum()) > 1e-6:
        share: Floats = filled + np.where(free, target, 0) / target[free].sum() * left
        full = free & (share >= cap)
        if not full.any():
            return share
        filled[full] = cap[full]
        free &= ~full
        filled[free] = 0
    return filled


def copies(corpus: MixInput, recipe: Mix) -> NDArray[np.int64]:
    """[documents]: copies of each; fractional epochs are sampled by the document's id."""
    rate = epochs(corpus, recipe)
    wanted = np.array(
        [rate[cell] for cell in zip(corpus.source.tolist(), corpus.language.tolist(), strict=True)],
        dtype=np.float64,
    )
    drawn = draw(corpus.id, recipe.seed, 0).astype(np.float64) / 2.0**64
    whole = np.floor(wanted + 1e-9)
    return (whole + (drawn < wanted - whole - 1e-9)).astype(np.int64)


def draw(ids: Hashes, seed: int, copy: int) -> Hashes:
    """[documents]: 64 random bits per id; different for each seed and copy."""
    salt = mix(np.array([seed * 1_000_003 + copy + 1], dtype=np.uint64))
    return mix(ids ^ salt)
