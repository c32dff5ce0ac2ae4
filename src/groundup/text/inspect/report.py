"""The records that an inspection is made of: plain values, few of them whatever the corpus's size."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

KEPT = "kept"

Diff = tuple[tuple[str, str], ...]
"""(op, text): "=" in both, "-" only in the old, "+" only in the new, "~" left out (the text says how much)."""


@dataclass(frozen=True, slots=True)
class Amount:
    """Documents and the bytes of their texts."""

    documents: int = 0
    bytes: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.documents + other.documents, self.bytes + other.bytes)


@dataclass(frozen=True, slots=True)
class Flow:
    """Where documents of one source went. `step` and `reason` are "" for those kept; bytes as they were read."""

    source: str
    step: str
    reason: str
    amount: Amount


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """The files of one source. `bytes` are those of the files, packed and with markup."""

    source: str
    files: int = 0
    bytes: int = 0
    rejected: int = 0
    documents: int = 0
    licences: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Reason:
    """How often something was noted in a stage's ledger. For rules, `rule` is the bound in words."""

    stage: str
    step: str
    outcome: str
    reason: str
    entries: int
    bytes: int = 0
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Bound:
    """A rule's limits on one measure; None where it has none."""

    step: str
    reason: str
    metric: str
    at_least: float | None
    at_most: float | None

    @property
    def column(self) -> str:
        """The measure's column in measures/."""
        return f"{self.step}.{self.metric}"

    def words(self) -> str:
        """`words ≥ 50 and ≤ 100,000`"""
        limits = [f"≥ {self.at_least:,g}"] if self.at_least is not None else []
        limits += [f"≤ {self.at_most:,g}"] if self.at_most is not None else []
        return f"{self.metric} {' and '.join(limits)}"


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold in a histogram. `at` counts in bars from the left; below 0 or above their number = off the scale."""

    reason: str
    side: Literal["at_least", "at_most"]
    value: float
    at: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """How a measure is distributed: documents per bar, the outermost bars with everything beyond them.

    They were kept, dropped by the step that measured them, or by one after it. `ticks` are (position in bars, value);
    `low` and `high` the 1st and 99th percentile.
    """

    step: str
    metric: str
    rows: int
    kept: tuple[int, ...]
    later: tuple[int, ...]
    dropped: tuple[int, ...]
    ticks: tuple[tuple[float, float], ...]
    thresholds: tuple[Threshold, ...]
    low: float
    median: float
    high: float
    log: bool


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a ledger, about one document."""

    stage: str
    step: str
    outcome: str
    reason: str
    detail: str = ""
    value: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class DocumentHistory:
    """What happened to one document. `fate` is "kept", "<step>: <reason>" or "aside: <reason>".

    `text` is as it was read, `more` the characters left out of it; `changes` how the text in the corpus differs,
    `final` that text, None unless it differs. `twin` is (id kept in its place, similarity, kind) of a duplicate.
    """

    id: str
    source: str
    path: str
    outcome: str
    bytes: int = 0
    language: str = ""
    licence: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    text: str = ""
    more: int = 0
    changes: Diff = ()
    final: str | None = None
    duplicate_of: tuple[str, float, str] | None = None
    hits: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class SampleGroup:
    """Documents to look at. `kind`: kept (to the end), passed (this step), dropped, changed, aside, or near (kept,
    but closest to a rule's limit).

    `rule` is the limit in words, `column` the measure that it bounds, e.g. `gopher_quality.words`.
    """

    kind: Literal["kept", "passed", "dropped", "changed", "rejected", "near"]
    step: str
    reason: str
    total: int
    ids: tuple[str, ...]
    rule: str = ""
    column: str = ""


@dataclass(frozen=True, slots=True)
class ClusterMember:
    """A duplicate beside the document kept in its place; `changes` leads from that one's beginning to this one's."""

    id: str
    similarity: float
    kind: str
    changes: Diff = ()


@dataclass(frozen=True, slots=True)
class Cluster:
    """Duplicates of one document. `why` it is shown: largest, least alike, random."""

    kept: str
    dropped: int
    why: str
    members: tuple[ClusterMember, ...]

    def ids(self) -> tuple[str, ...]:
        """The document kept, and the duplicates that are shown."""
        return (self.kept, *(member.id for member in self.members))


@dataclass(frozen=True, slots=True)
class Duplicates:
    """All clusters in numbers, and some of them."""

    clusters: int = 0
    kinds: tuple[tuple[str, int], ...] = ()
    sizes: tuple[tuple[str, int], ...] = ()
    similarity: Histogram | None = None
    shown: tuple[Cluster, ...] = ()


@dataclass(frozen=True, slots=True)
class Contamination:
    """Evaluation items met in the corpus: per task (task, hits, items, documents), and some of the hits."""

    tasks: tuple[tuple[str, int, int, int], ...] = ()
    hits: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """A sum that must come out, in words, and whether it does."""

    text: str
    holds: bool


@dataclass(frozen=True, slots=True)
class CorpusReport:
    """Everything a page or a terminal shows of one corpus."""

    title: str
    curated: bool
    steps: tuple[str, ...]
    files: tuple[SourceFiles, ...]
    flows: tuple[Flow, ...]
    languages: tuple[tuple[str, Amount, Amount], ...]
    """(language, read, kept), the largest first"""
    corpus: tuple[tuple[str, Amount], ...]
    """(source, what lies in the corpus: after changes and mixing)"""
    reasons: tuple[Reason, ...]
    redactions: tuple[tuple[str, int, int], ...]
    """(kind, documents, redactions)"""
    histograms: tuple[Histogram, ...]
    duplicates: Duplicates
    contamination: Contamination
    checks: tuple[Check, ...]
    groups: tuple[SampleGroup, ...]
    drawn: tuple[str, ...]
    """Ids of a random choice of all documents (or of all of them), to be searched"""
    documents: Mapping[str, DocumentHistory]
    index: tuple[tuple[str, str, str, str, int, str], ...]
    """(id, path, source, language, bytes, fate) of some documents, or of all"""

    def amount(self, step: str | None = None, source: str | None = None) -> Amount:
        """What a step dropped ("" = what was kept, None = all that was read), of one source or of all."""
        return sum(
            (
                flow.amount
                for flow in self.flows
                if step in (None, flow.step) and source in (None, flow.source)
            ),
            Amount(),
        )

    def funnel(self, source: str | None = None) -> list[tuple[str, Amount, Amount]]:
        """(step, what it dropped, what was left after it), in the order of the steps."""
        left, levels = self.amount(None, source), []
        for step in self.steps:
            dropped = self.amount(step, source)
            left = Amount(left.documents - dropped.documents, left.bytes - dropped.bytes)
            levels.append((step, dropped, left))
        return levels

    def numbers(self) -> dict[str, Any]:
        """The story without any text, for programs."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name not in _WITH_TEXT}
        numbers = {name: plain(value) for name, value in fields.items()}
        numbers["duplicates"].pop("shown")
        numbers["contamination"].pop("hits")
        read, kept, corpus = self.amount(), self.amount(""), sum((a for _, a in self.corpus), Amount())
        totals = {"read": asdict(read), "kept": asdict(kept), "corpus": asdict(corpus)}
        return totals | {"funnel": plain(self.funnel())} | numbers


_WITH_TEXT = ("groups", "drawn", "documents", "index")


def plain(value: Any) -> Any:
    """Records as dictionaries, tuples as lists: what JSON can say."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, tuple | list) else value
