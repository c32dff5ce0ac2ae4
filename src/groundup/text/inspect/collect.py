"""Collects a corpus report from the artifacts of ingest and curate.

in:  documents/, rejects/, sources.jsonl of ingest; documents/, rejects/, document_metrics/, rules.json,
     clusters.parquet and decontamination.parquet of curate
out: CorpusReport
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.core.errors import DataError
from groundup.core.jsonl import read_jsonl
from groundup.text.documents import DOCUMENTS, REJECTS, count_rows, strings
from groundup.text.inspect.census import Census
from groundup.text.inspect.corpus import DOCUMENT_COLUMNS, HITS, Corpus
from groundup.text.inspect.duplicates import collect_duplicates, with_changes
from groundup.text.inspect.lookup import document_histories, read_rules
from groundup.text.inspect.report import (
    KEPT,
    Amount,
    Bound,
    Check,
    Contamination,
    CorpusReport,
    Reason,
    SampleGroup,
    SourceFiles,
)
from groundup.text.inspect.scan import BottomK, groups, random_keys, rows_with, tables

EXCERPT = 1500
"""Characters of a sample's text."""
SAMPLES = 500
"""Approximate number of documents shown with text; with many reasons, each gets fewer."""
INDEXED = 20_000
"""Documents that the page's search finds by id and path."""
DRAWN = 2000
"""Documents of the random sample whose text and history the page's search covers."""
LAST_STEPS = ("decontaminate", "dedup", "mix")
"""Steps after those of the recipe, in this order."""
PRIVACY = "privacy"
"""The step whose metrics are redactions by kind."""
_HITS_SHOWN = 60


def collect(
    corpus: Corpus, title: str = "", per_reason: int = 5, drawn: int = DRAWN, seed: int = 0
) -> CorpusReport:
    """Report of a corpus; `drawn` random documents are included for search.

    Raises DataError if curate has no document metrics.
    """
    bounds = read_rules(corpus)
    census = Census(bounds, per_reason, INDEXED, seed)
    for table in corpus.rows():
        census.add(table)
    if not census.flows:
        raise DataError(
            f"{corpus.curated} has no document metrics. Rebuild it with this version: groundup run"
        )
    rejects = _RejectCounts(per_reason, seed)
    for stage, folder in corpus.stages():
        rejects.read(stage, folder / REJECTS)
    steps = _steps(corpus, [*census.steps(), *rejects.steps()])
    chosen = _fewer([*census.groups(steps), *rejects.groups()], bounds, steps)
    duplicates = collect_duplicates(corpus, seed)
    index = census.index()
    shown = [id for cluster in duplicates.shown for id in cluster.ids()] + [
        id for g in chosen for id in g.ids
    ]
    documents = document_histories(corpus, dict.fromkeys([*shown, *index[:drawn]]), EXCERPT)
    files, left = _files(corpus.ingested), _left(corpus)
    return CorpusReport(
        title=title or corpus.ingested.name,
        curated=corpus.curated is not None,
        steps=steps,
        files=files,
        flows=census.flow_list(),
        languages=census.languages(),
        corpus=left,
        reasons=rejects.reasons(census, bounds, steps),
        redactions=census.positive(PRIVACY),
        histograms=tuple(h for h in census.histograms(steps) if h.step != PRIVACY),
        duplicates=with_changes(duplicates, documents),
        contamination=_contamination(corpus, seed),
        checks=_checks(corpus, files, census, rejects, left),
        groups=chosen,
        drawn=index[:drawn],
        documents=documents,
        index=_index(corpus, index),
    )


class _RejectCounts:
    """Counts of both rejects logs, and samples of changed documents and rejected files."""

    def __init__(self, per_reason: int, seed: int) -> None:
        self.count: Counter[tuple[str, str, str, str]] = Counter()
        self._lowest: dict[tuple[str, str, str, str], BottomK] = defaultdict(lambda: BottomK(per_reason))
        self._seed = seed

    def read(self, stage: str, folder: Path) -> None:
        """Count the rejects log of a stage."""
        for table in tables(folder, ["id", "step", "outcome", "reason"]):
            ids = np.array(strings(table, "id"), str)
            drawn = random_keys(strings(table, "id"), self._seed)
            kinds = [strings(table, name) for name in ("step", "outcome", "reason")]
            rows: dict[tuple[str, str, str, str], list[int]] = defaultdict(list)
            for row, kind in enumerate(zip(*kinds, strict=True)):
                rows[stage, *kind].append(row)
            for key, at in rows.items():
                self.count[key] += len(at)
                if key[2] != "dropped":
                    self._lowest[key].offer(drawn[at], ids[at])

    def steps(self) -> list[str]:
        """Steps of curate in the rejects log."""
        return [step for stage, step, _, _ in self.count if stage == "curate"]

    def dropped(self) -> Counter[str]:
        """Documents dropped by curate, by outcome as in document_metrics/."""
        documents: Counter[str] = Counter()
        for (stage, step, outcome, reason), number in self.count.items():
            if stage == "curate" and outcome == "dropped":
                documents[f"{step}: {reason}"] += number
        return documents

    def groups(self) -> list[SampleGroup]:
        """Changed documents and rejected files, by reason."""
        groups = []
        for key, lowest in self._lowest.items():
            _, step, outcome, reason = key
            groups.append(
                SampleGroup(
                    "rejected" if outcome == "rejected" else "changed",
                    step,
                    reason,
                    self.count[key],
                    lowest.ids(),
                )
            )
        return groups

    def reasons(self, census: Census, bounds: Sequence[Bound], steps: Sequence[str]) -> tuple[Reason, ...]:
        """Every reason of both rejects logs, in the order of the steps, most frequent first."""
        rule = {(bound.step, bound.reason): bound.words() for bound in bounds}

        def bytes_of(step: str, reason: str, outcome: str) -> int:
            return census.outcomes[f"{step}: {reason}"].bytes if outcome == "dropped" else 0

        reasons = [
            Reason(
                stage,
                step,
                outcome,
                reason,
                number,
                bytes_of(step, reason, outcome),
                rule.get((step, reason), ""),
            )
            for (stage, step, outcome, reason), number in self.count.items()
        ]
        order = {step: place for place, step in enumerate(["ingest", *steps])}
        return tuple(sorted(reasons, key=lambda r: (order.get(r.step, 0), r.outcome, -r.entries, r.reason)))


def _manifest(corpus: Corpus) -> dict[str, Any]:
    """Manifest of the curate artifact, empty if there is none."""
    path = corpus.curated_path("manifest.json")
    manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return manifest


def _steps(corpus: Corpus, seen: Sequence[str]) -> tuple[str, ...]:
    """Steps in recipe order, then the others."""
    uses = [
        str(step["use"]) for step in _manifest(corpus).get("recipe", {}).get("steps", ()) if "use" in step
    ]
    twice = [uses[:place].count(use) + 1 for place, use in enumerate(uses)]
    named = [use if number == 1 else f"{use}-{number}" for use, number in zip(uses, twice, strict=True)]
    others = [step for step in dict.fromkeys(seen) if step not in named]
    others.sort(key=lambda step: LAST_STEPS.index(step) if step in LAST_STEPS else -1)
    return tuple(dict.fromkeys([*(step for step in named if step in seen), *others]))


def _fewer(
    groups: Sequence[SampleGroup], bounds: Sequence[Bound], steps: Sequence[str]
) -> tuple[SampleGroup, ...]:
    """The groups in order, each with its rule; with many groups, fewer documents in each."""
    most = max(1, SAMPLES // max(len(groups), 1))
    bound_of = {(bound.step, bound.reason): bound for bound in bounds}
    kinds = ("kept", "dropped", "near", "changed", "passed", "rejected")
    order = {step: place for place, step in enumerate(["", *steps])}
    ordered = sorted(groups, key=lambda g: (order.get(g.step, -1), kinds.index(g.kind), -g.total, g.reason))
    shortened = []
    for g in ordered:
        bound = bound_of.get((g.step, g.reason))
        rule, column = (bound.words(), bound.column) if bound else ("", "")
        shortened.append(replace(g, ids=g.ids[:most], rule=rule, column=column))
    return tuple(shortened)


def _files(ingested: Path) -> tuple[SourceFiles, ...]:
    """Files per source, from sources.jsonl; licences from the documents."""
    count: dict[str, Counter[str]] = defaultdict(Counter)
    path = ingested / "sources.jsonl"
    if path.exists():
        for entry in read_jsonl(path):
            added = {"files": 1, "bytes": entry.get("bytes", 0), "documents": entry.get("documents", 0)}
            count[entry["source"]].update(added | {"rejected": bool(entry.get("rejected"))})
    licences: dict[str, Counter[str]] = defaultdict(Counter)
    for table in tables(ingested / DOCUMENTS, ["source", "licence"]):
        for row in table.group_by(["source", "licence"]).aggregate([([], "count_all")]).to_pylist():
            licences[row["source"]][row["licence"] or ""] += row["count_all"]
    sources = []
    for source in sorted(count.keys() | licences.keys()):
        said_of, common = count[source], tuple(licences[source].most_common(6))
        numbers = (said_of["files"], said_of["bytes"], said_of["rejected"], said_of["documents"])
        sources.append(SourceFiles(source, *numbers, licences=common))
    return tuple(sources)


def _left(corpus: Corpus) -> tuple[tuple[str, Amount], ...]:
    """Amount in the final corpus, per source."""
    amounts: dict[str, Amount] = defaultdict(Amount)
    for table in groups(corpus.stages()[-1][1] / DOCUMENTS, ["source", "text"]):
        sized = pa.table({"source": table.column("source"), "bytes": pc.binary_length(table.column("text"))})
        for row in sized.group_by("source").aggregate([("bytes", "sum"), ("bytes", "count")]).to_pylist():
            amounts[row["source"]] += Amount(row["bytes_count"], row["bytes_sum"])
    return tuple(sorted(amounts.items()))


def _contamination(corpus: Corpus, seed: int) -> Contamination:
    """Hits per task, and sample hits."""
    hits: Counter[str] = Counter()
    items: dict[str, set[str]] = defaultdict(set)
    documents: dict[str, set[str]] = defaultdict(set)
    lowest: dict[str, BottomK] = defaultdict(lambda: BottomK(10))
    for table in tables(corpus.curated_path(HITS), ["task", "item", "id"]):
        tasks, matched, ids = (np.array(strings(table, name), str) for name in ("task", "item", "id"))
        drawn = random_keys(matched.tolist(), seed)
        for task in np.unique(tasks).tolist():
            here = tasks == task
            hits[task] += int(np.count_nonzero(here))
            items[task].update(matched[here].tolist())
            documents[task].update(ids[here].tolist())
            lowest[task].offer(drawn[here], matched[here])
    shown = {item for task in lowest for item in lowest[task].ids()}
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows_with(corpus.curated_path(HITS), shown, key="item"):
        rows.setdefault((row["task"], row["item"]), row | {"text": str(row["text"])[:300]})
    table_rows = tuple(
        (task, number, len(items[task]), len(documents[task])) for task, number in hits.most_common()
    )
    return Contamination(table_rows, tuple(rows.values())[:_HITS_SHOWN])


def _checks(
    corpus: Corpus,
    files: Sequence[SourceFiles],
    census: Census,
    rejects: _RejectCounts,
    left: Sequence[tuple[str, Amount]],
) -> tuple[Check, ...]:
    """Consistency checks of counts from independent files."""
    offered, read = count_rows(corpus.ingested), sum((a.documents for a in census.outcomes.values()), 0)
    if corpus.curated is None:
        in_files = sum(source.documents for source in files)
        return (
            Check(f"{in_files:,} documents found in the files = {offered:,} ingested", in_files == offered),
        )
    kept, dropped = census.outcomes[KEPT].documents, rejects.dropped().total()
    written = sum(amount.documents for _, amount in left)
    counted = census.outcomes
    differing = [
        f"{outcome} ({number:,} in the rejects log, {counted[outcome].documents:,} in the document metrics)"
        for outcome, number in sorted(rejects.dropped().items())
        if counted[outcome].documents != number
    ]
    differing += sorted(
        outcome for outcome in census.outcomes if outcome != KEPT and outcome not in rejects.dropped()
    )
    checks = [
        Check(f"{offered:,} documents ingested = {read:,} read by curate", offered == read),
        Check(
            f"{read:,} read = {kept:,} kept + {dropped:,} dropped in the rejects log", read == kept + dropped
        ),
        Check(
            "rejects log and document metrics agree on every reason"
            + (f", but {differing[0]}" if differing else ""),
            not differing,
        ),
    ]
    if written > kept:
        words = f"{written:,} in the corpus = {kept:,} kept + {written - kept:,} repeated by mixing"
        return (*checks, Check(words, True))
    return (*checks, Check(f"{kept:,} kept = {written:,} in the corpus", written == kept))


def _index(corpus: Corpus, ids: tuple[str, ...]) -> tuple[tuple[str, str, str, str, int, str], ...]:
    rows = corpus.rows_of(ids, DOCUMENT_COLUMNS)
    names = ("path", "source", "language", "bytes", "outcome")
    return tuple((id, *(rows[id][name] for name in names)) for id in ids)
