"""Records of a corpus report: plain values of bounded number, whatever the corpus's size."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

KEPT = "kept"

Diff = tuple[tuple[str, str], ...]
"""(op, text): "=" in both, "-" only in the old, "+" only in the new, "~" omitted (the text says how much)."""


@dataclass(frozen=True, slots=True)
class Amount:
    """Documents and the bytes of their texts."""

    documents: int = 0
    bytes: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.documents + other.documents, self.bytes + other.bytes)


@dataclass(frozen=True, slots=True)
class Flow:
    """Outcome of documents of one source. `step` and `reason` are "" for those kept; bytes are as read."""

    source: str
    step: str
    reason: str
    amount: Amount


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """Files of one source. `bytes` are those of the files, compressed and with markup."""

    source: str
    files: int = 0
    bytes: int = 0
    rejected: int = 0
    documents: int = 0
    licences: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Reason:
    """Number of rejects-log entries with one reason. For rules, `rule` is the bound in words."""

    stage: str
    step: str
    outcome: str
    reason: str
    entries: int
    bytes: int = 0
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Bound:
    """Bounds of a rule on one metric; None where it has none."""

    step: str
    reason: str
    metric: str
    at_least: float | None
    at_most: float | None

    @property
    def column(self) -> str:
        """The metric's column in document_metrics/."""
        return f"{self.step}.{self.metric}"

    def words(self) -> str:
        """`words ≥ 50 and ≤ 100,000`"""
        limits = [f"≥ {self.at_least:,g}"] if self.at_least is not None else []
        limits += [f"≤ {self.at_most:,g}"] if self.at_most is not None else []
        return f"{self.metric} {' and '.join(limits)}"


@dataclass(frozen=True, slots=True)
class Threshold:
    """Threshold in a histogram. `at` counts bars from the left; below 0 or above their number = off the scale."""

    reason: str
    side: Literal["at_least", "at_most"]
    value: float
    at: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Distribution of a metric: documents per bar; the outermost bars include everything beyond them.

    Documents are kept, dropped by the step that computed the metric, or by a later one. `ticks` are (position in bars,
    value); `low` and `high` the 1st and 99th percentile.
    """

    step: str
    metric: str
    documents: int
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
    """Rejects-log entry of one document."""

    stage: str
    step: str
    outcome: str
    reason: str
    detail: str = ""
    value: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class DocumentHistory:
    """What happened to one document. `outcome` is "kept", "<step>: <reason>" or "rejected: <reason>".

    `text` is as read, `more` the number of characters omitted; `changes` is the difference of the corpus text, `final`
    that text, None if equal. `duplicate_of` is (id of the kept document, similarity, kind).
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
    """Sample documents. `kind`: kept, passed (this step), dropped, changed, rejected, or near (kept, but close to a
    rule's bound).

    `rule` is the bound in words, `column` its metric, e.g. `gopher_quality.words`.
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
    """A duplicate; `changes` is the difference from the beginning of the kept document."""

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
        """The document kept, and the duplicates shown."""
        return (self.kept, *(member.id for member in self.members))


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Statistics of all duplicate clusters, and sample clusters."""

    clusters: int = 0
    kinds: tuple[tuple[str, int], ...] = ()
    sizes: tuple[tuple[str, int], ...] = ()
    similarity: Histogram | None = None
    shown: tuple[Cluster, ...] = ()


@dataclass(frozen=True, slots=True)
class Contamination:
    """Evaluation items found in the corpus: per task (task, hits, items, documents), and sample hits."""

    tasks: tuple[tuple[str, int, int, int], ...] = ()
    hits: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """A consistency check of two counts, in words, and whether it holds."""

    text: str
    holds: bool


@dataclass(frozen=True, slots=True)
class CorpusReport:
    """Content of the inspect page and of the terminal report."""

    title: str
    curated: bool
    steps: tuple[str, ...]
    files: tuple[SourceFiles, ...]
    flows: tuple[Flow, ...]
    languages: tuple[tuple[str, Amount, Amount], ...]
    """(language, read, kept), the largest first"""
    corpus: tuple[tuple[str, Amount], ...]
    """(source, amount in the final corpus: after changes and mixing)"""
    reasons: tuple[Reason, ...]
    redactions: tuple[tuple[str, int, int], ...]
    """(kind, documents, redactions)"""
    histograms: tuple[Histogram, ...]
    duplicates: Duplicates
    contamination: Contamination
    checks: tuple[Check, ...]
    groups: tuple[SampleGroup, ...]
    drawn: tuple[str, ...]
    """Ids of a random sample of all documents (or of all of them), for search"""
    documents: Mapping[str, DocumentHistory]
    index: tuple[tuple[str, str, str, str, int, str], ...]
    """(id, path, source, language, bytes, outcome) of some documents, or of all"""

    def amount(self, step: str | None = None, source: str | None = None) -> Amount:
        """Amount dropped by a step ("" = kept, None = read), of one source or of all."""
        return sum(
            (
                flow.amount
                for flow in self.flows
                if step in (None, flow.step) and source in (None, flow.source)
            ),
            Amount(),
        )

    def funnel(self, source: str | None = None) -> list[tuple[str, Amount, Amount]]:
        """(step, amount dropped, amount left), in the order of the steps."""
        left, levels = self.amount(None, source), []
        for step in self.steps:
            dropped = self.amount(step, source)
            left = Amount(left.documents - dropped.documents, left.bytes - dropped.bytes)
            levels.append((step, dropped, left))
        return levels

    def numbers(self) -> dict[str, Any]:
        """The report without texts, for programs."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name not in _WITH_TEXT}
        numbers = {name: plain(value) for name, value in fields.items()}
        numbers["duplicates"].pop("shown")
        numbers["contamination"].pop("hits")
        read, kept, corpus = self.amount(), self.amount(""), sum((a for _, a in self.corpus), Amount())
        totals = {"read": asdict(read), "kept": asdict(kept), "corpus": asdict(corpus)}
        return totals | {"funnel": plain(self.funnel())} | numbers


_WITH_TEXT = ("groups", "drawn", "documents", "index")


def plain(value: Any) -> Any:
    """Records as dictionaries, tuples as lists: plain JSON."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, tuple | list) else value
