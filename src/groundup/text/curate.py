"""Raw documents -> the documents worth learning from, and a ledger of everything dropped or changed.

in:  documents.parquet of acquire
out: documents.parquet, ledger.parquet; read = kept + dropped, always

The steps judge in the order of the blueprint, exact duplicates come last: a document that a step drops is
never the one for whose sake its twin goes.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from groundup.core.errors import DataError
from groundup.core.recipe import Recipe, Site
from groundup.core.slot import Slot, part_name
from groundup.core.stage import Artifact, Work, stage
from groundup.text.dedup import ExactDuplicates
from groundup.text.documents import (
    DOCUMENTS_FILE,
    LEDGER_FILE,
    LEDGER_SCHEMA,
    DocumentWriter,
    LedgerWriter,
    count_rows,
    iter_tables,
    spell_reasons,
    strings,
)
from groundup.text.steps import Step, Verdicts
from groundup.text.steps.length import Length
from groundup.text.steps.repetition import Repetition


class Curate(Recipe):
    """What decides which documents are kept."""

    steps: tuple[Annotated[Step, Slot("groundup.text.steps")], ...] = (Length(), Repetition())
    deduplicate: bool = True


@stage(version=1)
def curate(recipe: Curate, site: Site, out: Work, raw: Artifact) -> dict[str, Any]:
    """Judge all documents of `raw`. Raises DataError, with the most frequent reasons, if none is left."""
    judges: list[tuple[str, _Judge]] = [(part_name(step), step) for step in recipe.steps]  # type: ignore[arg-type]
    if recipe.deduplicate:
        judges.append(("dedup", ExactDuplicates()))
    tally = _Tally()
    with (
        DocumentWriter(out.file(DOCUMENTS_FILE)) as documents,
        LedgerWriter(out.file(LEDGER_FILE)) as ledger,
        out.track("curate", count_rows(raw.path), "documents") as progress,
    ):
        for table in iter_tables(raw.path):
            tally.read(table)
            kept = table
            for name, judge in judges:
                kept, entries = apply(name, judge.judge(kept), kept)
                ledger.write(entries)
                tally.note(entries)
            tally.keep(kept)
            documents.write(kept)
            progress.advance(table.num_rows)
    assert tally.count["read"] == tally.count["kept"] + tally.count["dropped"], tally.count
    reasons = spell_reasons(tally.reasons)
    if not tally.count["kept"]:
        raise DataError(
            f"curate: none of {tally.count['read']} documents is left. Dropped for: {reasons}. "
            "Loosen these rules under [[curate.steps]], or give it other documents."
        )
    out.say(f"{tally.count['kept']:,} of {tally.count['read']:,} documents kept")
    if reasons:
        out.say(f"dropped, each named in {LEDGER_FILE}: {reasons}")
    return tally.metrics()


def apply(step: str, verdicts: Verdicts, documents: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The documents that stay (with the new text that a verdict brings), and the ledger of the others."""
    rows = documents.num_rows
    assert len(verdicts.reason) == rows, f"{step}: {len(verdicts.reason)} verdicts for {rows} documents"
    marked = [row for row, reason in enumerate(verdicts.reason) if reason is not None]
    if not marked:
        return documents, LEDGER_SCHEMA.empty_table()
    new = verdicts.text or [None] * rows
    fates = ["dropped" if new[row] is None else "changed" for row in marked]
    named = documents.select(["id", "source", "path"]).take(marked).to_pydict()
    columns = named | {
        "step": [step] * len(marked),
        "fate": fates,
        "reason": [verdicts.reason[row] for row in marked],
        "value": [verdicts.value[row] for row in marked],
        "threshold": [verdicts.threshold[row] for row in marked],
        "detail": [verdicts.detail[row] if verdicts.detail else "" for row in marked],
    }
    if verdicts.text is not None:
        old = strings(documents, "text")
        text = pa.array([was if now is None else now for was, now in zip(old, new, strict=True)], pa.string())
        documents = documents.set_column(documents.schema.get_field_index("text"), "text", text)
    dropped = {row for row, fate in zip(marked, fates, strict=True) if fate == "dropped"}
    kept = documents.filter(pa.array([row not in dropped for row in range(rows)], pa.bool_()))
    return kept, pa.table(columns, schema=LEDGER_SCHEMA)


class _Judge(Protocol):
    def judge(self, documents: pa.Table) -> Verdicts: ...


@dataclass
class _Tally:
    """Counts of documents and bytes of text, in all and per source."""

    count: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    sources: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def read(self, table: pa.Table) -> None:
        self._add(table, "read")

    def keep(self, table: pa.Table) -> None:
        self._add(table, "kept")

    def note(self, entries: pa.Table) -> None:
        """Count a step's ledger."""
        for fate, reason in zip(strings(entries, "fate"), strings(entries, "reason"), strict=True):
            if fate == "dropped":
                self.count["dropped"] += 1
                self.reasons[reason] += 1
            else:
                self.changed[reason] += 1

    def _add(self, table: pa.Table, what: str) -> None:
        sizes = pc.binary_length(table.column("text")).to_pylist()
        self.count[what] += len(sizes)
        self.bytes[what] += sum(sizes)
        for source, size in zip(strings(table, "source"), sizes, strict=True):
            self.sources[source][f"documents_{what}"] += 1
            self.sources[source][f"bytes_{what}"] += size

    def metrics(self) -> dict[str, Any]:
        names = ("documents_read", "documents_kept", "bytes_read", "bytes_kept")
        return {
            "documents_read": self.count["read"],
            "documents_kept": self.count["kept"],
            "documents_dropped": self.count["dropped"],
            "bytes_read": self.bytes["read"],
            "bytes_kept": self.bytes["kept"],
            "reasons": dict(self.reasons.most_common()),
            "changed": dict(self.changed.most_common()),
            "sources": {
                source: {n: counts[n] for n in names} for source, counts in sorted(self.sources.items())
            },
        }
