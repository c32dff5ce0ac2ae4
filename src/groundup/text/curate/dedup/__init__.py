"""Duplicates: the same text, nearly the same text, and lines or paragraphs that the corpus has already said.

in:  shards of documents, batch by batch
out: for every document to drop: which one is kept in its place, and how similar the two are

1. Map, a shard per task, in any number of processes (`signatures.py`): an exact key, the set of word n-grams and the
   band keys of its MinHash go into a folder per shard (about half the size of the texts; gone when curation is done).

       write_signatures(folder, batches, recipe)

2. One process for all shards (`clusters.py`): documents with equal exact keys, and those that share a band key and
   have a true Jaccard of at least `similarity` (`pairs.py`), form clusters; one of each cluster is kept.

       duplicates = find_duplicates(folders, recipe, scores)

3. Where the recipe asks for it (`repeats.py`): lines or paragraphs that stood earlier in what was kept are found by one
   more global pass, and cut batch by batch.

       mark_repeats(folders, recipe, duplicates)
       verdicts = cut_repeats(batch, rows, folder, recipe)

Documents are numbered by shard and row, and nothing else decides: the result depends neither on the number of
processes nor on how the same documents, in the same order, are cut into shards and batches.
"""

from typing import Literal

from pydantic import Field

from groundup.core.recipe import Recipe


class Dedup(Recipe):
    """Which documents count as the same, and which of them is kept."""

    exact: bool = Field(default=True, description="drop texts that differ in white space alone")
    fuzzy: bool = Field(default=True, description="drop near-duplicates: MinHash, then true Jaccard")
    ngram: int = Field(default=5, ge=1, description="words in the n-grams that are compared")
    bands: int = Field(default=16, ge=1, description="more bands find more of the pairs near `similarity`")
    rows: int = Field(
        default=7, ge=1, description="hashes in a band; more make candidates fewer and more alike"
    )
    similarity: float = Field(default=0.8, gt=0, le=1, description="Jaccard from which two documents are one")
    keep: Literal["longest", "earliest", "best"] = Field(
        default="longest",
        description="which document of a cluster stays; best = highest score, then earliest",
    )
    lines: int = Field(
        default=0, ge=0, description="cut runs of so many lines met before: 1 CCNet, 3 C4; 0 = off"
    )
    paragraphs: bool = Field(default=False, description="cut paragraphs met before")
    seed: int = Field(default=0, ge=0, description="draws the hash functions of MinHash")

    @property
    def active(self) -> bool:
        """Whether anything is to be done."""
        return bool(self.exact or self.fuzzy or self.lines or self.paragraphs)
