"""Terminal report of a corpus: a shorter version of the page.

in:  CorpusReport
out: tables on a rich Console; document text goes through `plain_text` and `one_line`
"""

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from groundup.text.inspect.differences import shorten
from groundup.text.inspect.report import Amount, Cluster, CorpusReport, Histogram, SampleGroup
from groundup.text.inspect.terminal import difference, new_table, one_line, plain_text, spell_bytes

_BAR = 24
_SPARKS = " ▁▂▃▄▅▆▇█"
_CLUSTERS = 3
_DIFFERENCE = 400
"""Characters shown of the difference between two duplicates."""


def print_report(report: CorpusReport, console: Console) -> None:
    """Funnel, sources, reasons, metrics, samples, duplicates, and consistency checks."""
    _funnel(report, console)
    _sources(report, console)
    _reasons(report, console)
    _metrics(report, console)
    _samples(report, console)
    _duplicates(report, console)
    _findings(report, console)
    for check in report.checks:
        style = "green" if check.holds else "bold red"
        console.print(Text("✓ " if check.holds else "✗ ", style) + plain_text(check.text))


def _funnel(report: CorpusReport, console: Console) -> None:
    read, kept = report.amount(), report.amount("")
    files = sum(source.files for source in report.files)
    packed = spell_bytes(sum(source.bytes for source in report.files))
    done = f"{kept.documents:,} of {read.documents:,} documents kept" if report.curated else (
        f"{read.documents:,} documents read, not curated yet")  # fmt: skip
    title = f"{report.title}: {done}, from {files:,} files of {packed}"
    table = new_table(title, "step", "<", ">changed", ">dropped", ">left", ">of read", ">text left")
    levels = [("read", Amount(), read), *report.funnel()]
    for step, dropped, left in [*levels, ("kept", Amount(), kept)] if report.curated else levels:
        part = _share(left, read)
        altered = sum(r.entries for r in report.reasons if r.step == step and r.outcome == "changed")
        counts = (f"{n:,}" if n else "" for n in (altered, dropped.documents))
        bar = Text("█" * round(part * _BAR), "blue")
        table.add_row(
            one_line(step), bar, *counts, f"{left.documents:,}", f"{part:.1%}", spell_bytes(left.bytes)
        )
    console.print(table)
    corpus = sum((amount for _, amount in report.corpus), Amount())
    if report.curated and corpus != kept:
        console.print(
            f"final corpus, after changes and mixing: {corpus.documents:,} documents, {spell_bytes(corpus.bytes)}"
        )


def _sources(report: CorpusReport, console: Console) -> None:
    steps = [step for step in report.steps if report.amount(step).documents]
    title = "documents that each step dropped, by source" if steps else "sources"
    ends = (">kept", ">of read") if report.curated else ()
    table = new_table(
        title, "source", "licence", ">files", ">rejected", ">read", *(f">{step}" for step in steps), *ends
    )
    named = {source.source: source for source in report.files}
    for source in sorted({*named, *(flow.source for flow in report.flows)}):
        files, read, kept = named.get(source), report.amount(None, source), report.amount("", source)
        licences = ", ".join(name or "not stated" for name, _ in files.licences) if files else ""
        numbers = [files.files if files else 0, files.rejected if files else 0, read.documents]
        numbers += [report.amount(step, source).documents for step in steps]
        last = [f"{kept.documents:,}", f"{_share(kept, read):.1%}"] if report.curated else []
        table.add_row(one_line(source), one_line(licences), *(f"{n:,}" if n else "-" for n in numbers), *last)
    console.print()
    console.print(table)


def _reasons(report: CorpusReport, console: Console) -> None:
    if not report.reasons:
        return
    table = new_table("reasons", "step", "outcome", "reason", "rule", ">number")
    for reason in report.reasons:
        cells = (reason.step, reason.outcome, reason.reason, reason.rule)
        table.add_row(*map(one_line, cells), f"{reason.entries:,}")
    console.print()
    console.print(table)


def _metrics(report: CorpusReport, console: Console) -> None:
    """Every histogram in one line; bars beyond a threshold are red."""
    if not report.histograms:
        return
    table = new_table("metrics (red: outside the rule)", "metric", "<distribution", ">1 %", ">median", ">99 %",
                      "rule", ">dropped")  # fmt: skip
    entries = {(r.step, r.reason): r.entries for r in report.reasons if r.outcome == "dropped"}
    step = ""
    for h in report.histograms:
        if h.step != step:
            step = h.step
            table.add_row(one_line(step, "bold"))
        rules = ", ".join(
            f"{'≥' if mark.side == 'at_least' else '≤'} {mark.value:,g}" for mark in h.thresholds
        )
        dropped = sum(entries.get((h.step, reason), 0) for reason in {mark.reason for mark in h.thresholds})
        quantiles = (f"{value:,.4g}" for value in (h.low, h.median, h.high))
        table.add_row(
            one_line(f"  {h.metric}"), _spark(h), *quantiles, rules, f"{dropped:,}" if dropped else ""
        )
    console.print()
    console.print(table)


def _spark(h: Histogram) -> Text:
    """Two bars of the histogram per character. Non-zero counts are always visible."""
    bars = [sum(counts) for counts in zip(h.kept, h.later, h.dropped, strict=True)]
    pairs = [sum(bars[at : at + 2]) for at in range(0, len(bars), 2)]
    most, text = max(pairs) or 1, Text()
    for at, number in enumerate(pairs):
        outside = any(2 * at + 2 <= m.at if m.side == "at_least" else 2 * at >= m.at for m in h.thresholds)
        text.append(_SPARKS[-(-number * (len(_SPARKS) - 1) // most)], "red" if outside else "blue")
    return text


def _samples(report: CorpusReport, console: Console) -> None:
    """The first document of every group, one line each."""
    console.print()
    console.print("samples: one per group", style="italic")
    step = ""
    for group in report.groups:
        if group.step != step:
            step = group.step
            console.print(one_line(step, "bold"))
        for document in (report.documents[id] for id in group.ids[:1]):
            line = one_line(f"  {_spell(group):<42} {group.total:>9,}  {document.id}  {document.path}  ")
            line += one_line(" ".join(document.text[:300].split()), "dim")
            console.print(line, no_wrap=True, overflow="ellipsis")


def _spell(group: SampleGroup) -> str:
    label = {"near": "just passed", "kept": "" if group.step else "kept"}.get(group.kind, group.kind)
    return f"{label}: {group.reason}" if group.reason else label


def _duplicates(report: CorpusReport, console: Console) -> None:
    duplicates = report.duplicates
    if not duplicates.clusters:
        return
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in duplicates.kinds)
    console.print()
    console.print(one_line(f"duplicates: {kinds}, of {duplicates.clusters:,} documents", "italic"))
    reasons = dict.fromkeys(cluster.why for cluster in duplicates.shown)
    for cluster in [next(c for c in duplicates.shown if c.why == why) for why in reasons][:_CLUSTERS]:
        _cluster(report, cluster, console)


def _cluster(report: CorpusReport, cluster: Cluster, console: Console) -> None:
    """A document, one of its duplicates, and their difference."""
    member = cluster.members[0]
    kept, removed = report.documents.get(cluster.kept), report.documents.get(member.id)
    if kept is None or removed is None:
        return
    console.print(one_line(f"  {cluster.why}: {cluster.dropped:,} of {kept.path} ({kept.id})"))
    console.print(one_line(f"  {member.similarity:.0%} alike ({member.kind}): {removed.path} ({removed.id})"))
    if any(op != "=" for op, _ in member.changes):
        console.print(Padding(difference(shorten(member.changes, _DIFFERENCE)), (0, 0, 0, 4)))


def _findings(report: CorpusReport, console: Console) -> None:
    """Evaluation items and redactions."""
    console.print()
    for task, hits, items, documents in report.contamination.tasks:
        console.print(one_line(f"{task}: {items:,} items met {hits:,} times in {documents:,} documents"))
    if report.redactions:
        counts = ", ".join(f"{number:,} {kind}" for kind, _, number in report.redactions)
        console.print(one_line(f"redacted: {counts}"))


def _share(part: Amount, whole: Amount) -> float:
    return part.documents / whole.documents if whole.documents else 0.0
