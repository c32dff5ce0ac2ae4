"""Deduplication: exact, near-duplicate (MinHash-LSH with verification), and repeated lines or paragraphs.

in:  shards of documents, batch by batch
out: for every dropped document the one that is kept, and their similarity

1. Map, one task per shard (`signatures.py`): exact key, word n-gram set and MinHash band keys per document, in a
   folder per shard (about half the size of the texts; temporary).

       write_signatures(folder, batches, recipe)

2. One process for all shards (`clusters.py`): documents with equal exact keys, and those that share a band key and
   have a true Jaccard of at least `similarity` (`verify_pairs.py`), form clusters; one of each cluster is kept.

       duplicates = find_duplicates(folders, recipe, scores)

3. Optional (`repeated_spans.py`): lines or paragraphs that occur earlier in the kept documents are found globally,
   and removed batch by batch.

       mark_repeats(folders, recipe, dropped)
       result = cut_repeats(batch, rows, folder, recipe)

Documents are numbered by shard and row: the result depends neither on the number of processes nor on how the same
sequence of documents is cut into shards and batches.
"""

from typing import Literal

from pydantic import Field

from groundup.core.recipe import Recipe


class Dedup(Recipe):
    """Which documents are duplicates, and which one of them is kept."""

    exact: bool = Field(default=True, description="drop texts that are equal except for white space")
    fuzzy: bool = Field(
        default=True, description="drop near-duplicates: MinHash-LSH, verified by true Jaccard similarity"
    )
    ngram: int = Field(default=5, ge=1, description="words per n-gram")
    bands: int = Field(default=16, ge=1, description="LSH bands; more find more pairs near `similarity`")
    rows: int = Field(
        default=7, ge=1, description="MinHash values per band; more give fewer, more similar candidates"
    )
    similarity: float = Field(
        default=0.8, gt=0, le=1, description="minimum Jaccard similarity of near-duplicates"
    )
    keep: Literal["longest", "earliest", "best"] = Field(
        default="longest",
        description="document of a cluster that is kept; best = highest score, then earliest",
    )
    lines: int = Field(
        default=0, ge=0, description="remove runs of this many repeated lines: 1 CCNet, 3 C4; 0 = off"
    )
    paragraphs: bool = Field(default=False, description="remove repeated paragraphs")
    seed: int = Field(default=0, ge=0, description="seed of the MinHash functions")

    def without_effect(self) -> dict[str, str]:
        """See `Strict`."""
        keys = ("ngram", "bands", "rows", "similarity", "seed")
        unused = {} if self.fuzzy else dict.fromkeys(keys, "fuzzy = false")
        return unused if self.exact or self.fuzzy else unused | {"keep": "exact and fuzzy are false"}

    @property
    def active(self) -> bool:
        """Whether any deduplication is enabled."""
        return bool(self.exact or self.fuzzy or self.lines or self.paragraphs)
