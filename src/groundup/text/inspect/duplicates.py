"""Statistics and sample clusters of duplicates, from clusters.parquet.

in:  clusters.parquet (id, id of the kept document, similarity, kind)
out: Duplicates: the largest clusters, the least alike, and random ones
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from groundup.text.inspect.corpus import CLUSTERS, Corpus
from groundup.text.inspect.differences import words
from groundup.text.inspect.distribution import DROPPED, Distribution
from groundup.text.inspect.report import Cluster, ClusterMember, DocumentHistory, Duplicates
from groundup.text.inspect.scan import BottomK, random_keys, rows_with, tables

_EACH = 6
"""Clusters shown of each sort."""
_TWINS = 3
"""Dropped documents shown of a cluster, the least alike first."""
_SIZES = (
    (1, "1"),
    (2, "2"),
    (4, "3-4"),
    (9, "5-9"),
    (99, "10-99"),
    (999, "100-999"),
    (1 << 62, "1,000 or more"),
)


def collect_duplicates(corpus: Corpus, seed: int) -> Duplicates:
    """Numbers and clusters, without the differences of their texts."""
    kinds: Counter[str] = Counter()
    cluster: Counter[str] = Counter()
    similarity, least = Distribution(), BottomK(_EACH * 4)
    for table in tables(corpus.curated_path(CLUSTERS)):
        columns = [table.column(name).to_pylist() for name in ("id", "kept", "kind", "similarity")]
        twins = [(kept, kind, alike) for id, kept, kind, alike in zip(*columns, strict=True) if id != kept]
        kinds.update(kind for _, kind, _ in twins)
        cluster.update(kept for kept, _, _ in twins)
        near = [(kept, alike) for kept, kind, alike in twins if kind != "exact"]
        values = np.array([alike for _, alike in near], np.float32)
        similarity.add(values, np.full(len(near), DROPPED))
        least.offer(values, np.array([kept for kept, _ in near], str))
    chosen = _choose(cluster, least, seed)
    twins_of = _twins(corpus, chosen)
    shown = tuple(Cluster(kept, cluster[kept], why, twins_of[kept]) for kept, why in chosen.items())
    drawn = similarity.histogram("dedup", "similarity")
    return Duplicates(len(cluster), tuple(kinds.most_common()), _by_size(cluster), drawn, shown)


def with_changes(duplicates: Duplicates, documents: Mapping[str, DocumentHistory]) -> Duplicates:
    """The same with every shown duplicate compared, word by word, with the kept document."""

    def compared(kept: str, member: ClusterMember) -> ClusterMember:
        a, b = documents.get(kept), documents.get(member.id)
        if a is None or b is None:
            return member
        pieces = words(a.text, b.text)
        while pieces and pieces[-1][0] != "=" and (a.more or b.more):
            pieces.pop()  # where texts are cut off, they seem to differ
        return replace(member, changes=tuple(pieces))

    shown = (
        replace(c, members=tuple(compared(c.kept, member) for member in c.members)) for c in duplicates.shown
    )
    return replace(duplicates, shown=tuple(shown))


def _choose(cluster: Counter[str], least: BottomK, seed: int) -> dict[str, str]:
    """Ids of kept documents, and why their clusters are shown."""
    largest, random = BottomK(_EACH), BottomK(3 * _EACH)
    names = np.array(list(cluster), str)
    largest.offer(-np.array(list(cluster.values()), np.int64), names)
    random.offer(random_keys(list(cluster), seed), names)
    chosen: dict[str, str] = {}
    for why, lowest in (("largest", largest), ("least alike", least), ("random", random)):
        new = [id for id in lowest.ids() if id not in chosen][:_EACH]
        chosen |= dict.fromkeys(new, why)
    return chosen


def _twins(corpus: Corpus, chosen: Mapping[str, str]) -> dict[str, tuple[ClusterMember, ...]]:
    """A few duplicates of each of the chosen documents."""
    twins: dict[str, list[tuple[float, str, str]]] = defaultdict(list)
    for row in rows_with(corpus.curated_path(CLUSTERS), chosen, key="kept"):
        if row["id"] != row["kept"]:
            best = twins[row["kept"]]
            best.append((row["similarity"], row["id"], row["kind"]))
            best.sort()
            del best[_TWINS:]
    return {
        kept: tuple(ClusterMember(id, alike, kind) for alike, id, kind in best)
        for kept, best in twins.items()
    }


def _by_size(cluster: Counter[str]) -> tuple[tuple[str, int], ...]:
    """(duplicates per cluster, clusters)"""
    sizes, counted, before = np.array(list(cluster.values()), np.int64), [], 0
    for most, label in _SIZES:
        counted.append((label, int(np.count_nonzero((sizes > before) & (sizes <= most)))))
        before = most
    return tuple(counted)
