"""The artifacts of ingest and curate -> a Story, in a few passes over the shards.

in:  documents/, ledger/, sources.jsonl of ingest; documents/, ledger/, measures/, rules.json, clusters.parquet and
     decontamination.parquet of curate
out: Story

Numbers are counted over everything; texts are looked up only for the documents chosen as samples.
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
from groundup.text.documents import DOCUMENTS, LEDGER, count_rows, strings
from groundup.text.inspect.census import Census
from groundup.text.inspect.corpus import ABOUT, HITS, Corpus
from groundup.text.inspect.duplicates import collect_duplicates, with_changes
from groundup.text.inspect.lookup import read_bounds, stories
from groundup.text.inspect.scan import Lowest, groups, lots, rows_with, tables
from groundup.text.inspect.story import (
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

EXCERPT = 1500
"""Characters of a sample's text."""
SAMPLES = 500
"""About how many documents are shown with their text; many reasons get fewer each."""
INDEXED = 20_000
"""Documents that the page's search knows by id and path."""
DRAWN = 2000
"""Documents of a random choice whose texts the page's search looks into, and whose stories it tells."""
LAST_STEPS = ("decontaminate", "dedup", "mix")
"""What follows the steps of the recipe, in this order."""
PRIVACY = "privacy"
"""The step whose measures are redactions by kind."""
_HITS_SHOWN = 60


def collect(
    corpus: Corpus, title: str = "", per_reason: int = 5, drawn: int = DRAWN, seed: int = 0
) -> CorpusReport:
    """Everything worth showing of a corpus; `drawn` documents are chosen at random for the search.

    Raises DataError if curate measured nothing.
    """
    bounds = read_bounds(corpus)
    census = Census(bounds, per_reason, INDEXED, seed)
    for table in corpus.measured():
        census.add(table)
    if not census.flows:
        raise DataError(f"{corpus.curated} has no measures. Build it again with this version: groundup run")
    ledger = _Ledger(per_reason, seed)
    for stage, folder in corpus.stages():
        ledger.read(stage, folder / LEDGER)
    steps = _steps(corpus, [*census.steps(), *ledger.steps()])
    chosen = _fewer([*census.groups(steps), *ledger.groups()], bounds, steps)
    duplicates = collect_duplicates(corpus, seed)
    index = census.index()
    shown = [id for cluster in duplicates.shown for id in cluster.ids()] + [
        id for g in chosen for id in g.ids
    ]
    documents = stories(corpus, dict.fromkeys([*shown, *index[:drawn]]), EXCERPT)
    files, left = _files(corpus.ingested), _left(corpus)
    return CorpusReport(
        title=title or corpus.ingested.name,
        curated=corpus.curated is not None,
        steps=steps,
        files=files,
        flows=census.flow_list(),
        languages=census.languages(),
        corpus=left,
        reasons=ledger.reasons(census, bounds, steps),
        redactions=census.positive(PRIVACY),
        histograms=tuple(h for h in census.histograms(steps) if h.step != PRIVACY),
        duplicates=with_changes(duplicates, documents),
        contamination=_contamination(corpus, seed),
        checks=_checks(corpus, files, census, ledger, left),
        groups=chosen,
        drawn=index[:drawn],
        documents=documents,
        index=_index(corpus, index),
    )


class _Ledger:
    """What both ledgers noted, and examples of what no measure shows: changed documents, files set aside."""

    def __init__(self, per_reason: int, seed: int) -> None:
        self.count: Counter[tuple[str, str, str, str]] = Counter()
        self._lowest: dict[tuple[str, str, str, str], Lowest] = defaultdict(lambda: Lowest(per_reason))
        self._seed = seed

    def read(self, stage: str, folder: Path) -> None:
        """Count a ledger; `stage` says whose it is."""
        for table in tables(folder, ["id", "step", "fate", "reason"]):
            ids = np.array(strings(table, "id"), str)
            drawn = lots(strings(table, "id"), self._seed)
            kinds = [strings(table, name) for name in ("step", "fate", "reason")]
            rows: dict[tuple[str, str, str, str], list[int]] = defaultdict(list)
            for row, kind in enumerate(zip(*kinds, strict=True)):
                rows[stage, *kind].append(row)
            for key, at in rows.items():
                self.count[key] += len(at)
                if key[2] != "dropped":
                    self._lowest[key].offer(drawn[at], ids[at])

    def steps(self) -> list[str]:
        """Steps of curate that are in the ledger."""
        return [step for stage, step, _, _ in self.count if stage == "curate"]

    def dropped(self) -> Counter[str]:
        """Documents dropped by curate, by fate as measures/ spells it."""
        said: Counter[str] = Counter()
        for (stage, step, fate, reason), number in self.count.items():
            if stage == "curate" and fate == "dropped":
                said[f"{step}: {reason}"] += number
        return said

    def groups(self) -> list[SampleGroup]:
        """Documents changed and files set aside, by reason."""
        found = []
        for key, lowest in self._lowest.items():
            _, step, fate, reason = key
            found.append(
                SampleGroup(
                    "aside" if fate == "aside" else "changed", step, reason, self.count[key], lowest.ids()
                )
            )
        return found

    def reasons(self, census: Census, bounds: Sequence[Bound], steps: Sequence[str]) -> tuple[Reason, ...]:
        """Every reason of both ledgers, in the order of the steps, the most frequent first."""
        rule = {(bound.step, bound.reason): bound.words() for bound in bounds}
        found = [
            Reason(stage, step, fate, reason, number,
                   census.fates[f"{step}: {reason}"].bytes if fate == "dropped" else 0, rule.get((step, reason), ""))
            for (stage, step, fate, reason), number in self.count.items()
        ]  # fmt: skip
        order = {step: place for place, step in enumerate(["ingest", *steps])}
        return tuple(sorted(found, key=lambda r: (order.get(r.step, 0), r.fate, -r.entries, r.reason)))


def _manifest(corpus: Corpus) -> dict[str, Any]:
    """What curate's manifest says, if there is one."""
    path = corpus.made("manifest.json")
    said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return said


def _steps(corpus: Corpus, seen: Sequence[str]) -> tuple[str, ...]:
    """The steps in the order of the recipe; those that it doesn't name follow."""
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
    """The groups in order, each with its rule; with very many of them, fewer documents in each."""
    most = max(1, SAMPLES // max(len(groups), 1))
    bound_of = {(bound.step, bound.reason): bound for bound in bounds}
    kinds = ("kept", "dropped", "near", "changed", "passed", "aside")
    order = {step: place for place, step in enumerate(["", *steps])}
    ordered = sorted(groups, key=lambda g: (order.get(g.step, -1), kinds.index(g.kind), -g.total, g.reason))
    found = []
    for g in ordered:
        bound = bound_of.get((g.step, g.reason))
        rule, column = (bound.words(), bound.column) if bound else ("", "")
        found.append(replace(g, ids=g.ids[:most], rule=rule, column=column))
    return tuple(found)


def _files(ingested: Path) -> tuple[SourceFiles, ...]:
    """Files per source, from sources.jsonl; licences from the documents."""
    count: dict[str, Counter[str]] = defaultdict(Counter)
    path = ingested / "sources.jsonl"
    if path.exists():
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                said = json.loads(line)
                added = {"files": 1, "bytes": said.get("bytes", 0), "documents": said.get("documents", 0)}
                count[said["source"]].update(added | {"aside": bool(said.get("aside"))})
    licences: dict[str, Counter[str]] = defaultdict(Counter)
    for table in tables(ingested / DOCUMENTS, ["source", "licence"]):
        for row in table.group_by(["source", "licence"]).aggregate([([], "count_all")]).to_pylist():
            licences[row["source"]][row["licence"] or ""] += row["count_all"]
    found = []
    for source in sorted(count.keys() | licences.keys()):
        said_of, common = count[source], tuple(licences[source].most_common(6))
        numbers = (said_of["files"], said_of["bytes"], said_of["aside"], said_of["documents"])
        found.append(SourceFiles(source, *numbers, licences=common))
    return tuple(found)


def _left(corpus: Corpus) -> tuple[tuple[str, Amount], ...]:
    """What lies in the corpus at the end, per source."""
    found: dict[str, Amount] = defaultdict(Amount)
    for table in groups(corpus.stages()[-1][1] / DOCUMENTS, ["source", "text"]):
        sized = pa.table({"source": table.column("source"), "bytes": pc.binary_length(table.column("text"))})
        for row in sized.group_by("source").aggregate([("bytes", "sum"), ("bytes", "count")]).to_pylist():
            found[row["source"]] += Amount(row["bytes_count"], row["bytes_sum"])
    return tuple(sorted(found.items()))


def _contamination(corpus: Corpus, seed: int) -> Contamination:
    """Hits per task, and some of them."""
    hits: Counter[str] = Counter()
    items: dict[str, set[str]] = defaultdict(set)
    documents: dict[str, set[str]] = defaultdict(set)
    lowest: dict[str, Lowest] = defaultdict(lambda: Lowest(10))
    for table in tables(corpus.made(HITS), ["task", "item", "id"]):
        tasks, met, ids = (np.array(strings(table, name), str) for name in ("task", "item", "id"))
        drawn = lots(met.tolist(), seed)
        for task in np.unique(tasks).tolist():
            here = tasks == task
            hits[task] += int(np.count_nonzero(here))
            items[task].update(met[here].tolist())
            documents[task].update(ids[here].tolist())
            lowest[task].offer(drawn[here], met[here])
    shown = {item for task in lowest for item in lowest[task].ids()}
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows_with(corpus.made(HITS), shown, key="item"):
        rows.setdefault((row["task"], row["item"]), row | {"text": str(row["text"])[:300]})
    table_rows = tuple(
        (task, number, len(items[task]), len(documents[task])) for task, number in hits.most_common()
    )
    return Contamination(table_rows, tuple(rows.values())[:_HITS_SHOWN])


def _checks(
    corpus: Corpus,
    files: Sequence[SourceFiles],
    census: Census,
    ledger: _Ledger,
    left: Sequence[tuple[str, Amount]],
) -> tuple[Check, ...]:
    """Sums over files that were written apart from one another."""
    offered, read = count_rows(corpus.ingested), sum((a.documents for a in census.fates.values()), 0)
    if corpus.curated is None:
        told = sum(source.documents for source in files)
        return (Check(f"{told:,} documents found in the files = {offered:,} ingested", told == offered),)
    kept, dropped = census.fates[KEPT].documents, ledger.dropped().total()
    written = sum(amount.documents for _, amount in left)
    apart = [f"{fate} ({n:,} in the ledger, {census.fates[fate].documents:,} measured)"
             for fate, n in sorted(ledger.dropped().items()) if census.fates[fate].documents != n]  # fmt: skip
    apart += sorted(fate for fate in census.fates if fate != KEPT and fate not in ledger.dropped())
    checks = [
        Check(f"{offered:,} documents ingested = {read:,} looked at by curate", offered == read),
        Check(f"{read:,} read = {kept:,} kept + {dropped:,} dropped in the ledger", read == kept + dropped),
        Check(
            "ledger and measures agree on every reason" + (f", but {apart[0]}" if apart else ""), not apart
        ),
    ]
    if written > kept:
        words = f"{written:,} in the corpus = {kept:,} kept + {written - kept:,} repeated by mixing"
        return (*checks, Check(words, True))
    return (*checks, Check(f"{kept:,} kept = {written:,} in the corpus", written == kept))


def _index(corpus: Corpus, ids: tuple[str, ...]) -> tuple[tuple[str, str, str, str, int, str], ...]:
    rows = corpus.measured_of(ids, ABOUT)
    names = ("path", "source", "language", "bytes", "fate")
    return tuple((id, *(rows[id][name] for name in names)) for id in ids)
