"""Chapters on the data and on the tokenizer.

in:  the artifacts of ingest, curate, tokenizer, tokenize
out: chapters; every loss of files, documents and tokens is counted
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from groundup.book.coloured_text import coloured_tokens
from groundup.book.content import (
    Block,
    Chapter,
    ColouredSpan,
    Fact,
    Facts,
    Figure,
    Heading,
    Table,
    Tokens,
    prose,
    strong,
)
from groundup.book.format import clip, count, is_number, number, percent, reason, size, visible
from groundup.book.funnel import Level, Split, funnel_svg
from groundup.book.load_run import LoadedRun
from groundup.core.jsonl import read_jsonl
from groundup.text.documents import RejectsLogEntry, iter_tables, read_rejects_log
from groundup.tokens.tokenizer import Tokenizer

_SAMPLE = 520
_EXAMPLES = 9
_LANGUAGES = {"": "not identified", "und": "undetermined", "code": "source code"}


def data_chapter(run: LoadedRun) -> Chapter:
    """Sources -> files -> documents -> tokens -> packed sequences, with the reason of every loss."""
    files, curated = _files(run), run.metrics("curate")
    dataset = run.metrics("tokenize")
    blocks: list[Block] = [
        prose("The corpus has ", strong(f"{count(curated.get('documents_kept'))} documents"),
              f", {size(curated.get('bytes_kept'))} of text. This chapter lists its sources, what was rejected, and "
              "why.", role="lead"),
        *_funnel(files, curated, dataset),
        Heading("Counts"),
        _counts(files, curated, dataset),
    ]  # fmt: skip
    blocks += _steps(curated)
    blocks += _sources(run, curated)
    blocks += _languages(curated)
    blocks += _rejects(run)
    return Chapter("The data", tuple(blocks))


def tokenizer_chapter(run: LoadedRun) -> Chapter | None:
    """Compression of the tokenizer compared with GPT-2's, and a tokenized sample."""
    artifact = run.last("tokenizer")
    if artifact is None:
        return None
    metrics = artifact.metrics
    blocks: list[Block] = [
        prose("Text is split into ", strong("tokens"), ": byte sequences that are frequent in the corpus (byte-level "
              "BPE). More bytes per token mean more text in the same context and less computation per byte.",
              role="lead"),
        Facts(_tokenizer_facts(metrics)),
    ]  # fmt: skip
    gpt2 = metrics.get("gpt2_bytes_per_token")
    if is_number(gpt2) and is_number(metrics.get("bytes_per_token")):
        gain = metrics["bytes_per_token"] / gpt2 - 1
        better = "fewer" if gain > 0 else "more"
        blocks.append(
            prose(f"GPT-2's tokenizer (50,257 tokens, trained on web text) gets {number(gpt2)} bytes per token on the "
                  f"same text. This one, trained on this corpus, needs {percent(abs(1 - 1 / (1 + gain)))} {better} "
                  "tokens.")
        )  # fmt: skip
    tokenizer = Tokenizer.load(artifact.path)
    sample = _sample(run)
    if sample is not None:
        path, text = sample
        blocks.append(Tokens(coloured_tokens(text, tokenizer),
                             f"From {visible(path)}: each colour is one token."))  # fmt: skip
    blocks += [Heading("The longest tokens"), _longest(tokenizer)]
    return Chapter("The tokenizer", tuple(blocks))


def _tokenizer_facts(metrics: dict[str, Any]) -> tuple[Fact, ...]:
    facts = [
        Fact(count(metrics.get("vocab_size")), "tokens in the vocabulary"),
        Fact(number(metrics.get("bytes_per_token")), "bytes per token, held-out text"),
    ]
    if is_number(metrics.get("gpt2_bytes_per_token")):
        facts.append(Fact(number(metrics["gpt2_bytes_per_token"]), "GPT-2's, same text"))
    return tuple(facts)


def _funnel(
    files: tuple[int, Counter[str]], curated: dict[str, Any], dataset: dict[str, Any]
) -> Iterator[Block]:
    total, reasons = files
    rejected = reasons.total()
    levels = [
        Level("files", total, total - rejected, _rejected_notes(rejected, "files rejected", reasons)),
        Level("documents", int(curated.get("documents_read") or 0), int(curated.get("documents_kept") or 0),
              _rejected_notes(int(curated.get("documents_dropped") or 0), "rejected", curated.get("reasons"))),
    ]  # fmt: skip
    splits = [
        Split("tokens", (("train", int(dataset.get("train_tokens") or 0)),
                         ("validation", int(dataset.get("validation_tokens") or 0)))),
        Split("packed sequences", (("train", int(dataset.get("train_rows") or 0)),
                                   ("validation", int(dataset.get("validation_rows") or 0)))),
    ]  # fmt: skip
    present_splits = [split for split in splits if sum(items for _, items in split.parts)]
    present_levels = tuple(level for level in levels if level.total)
    if present_levels:
        caption = ("From files to packed sequences. A bar is as wide as the kept fraction of the bar above it; "
                   "rejects are counted beside it. Orange is the validation split.")  # fmt: skip
        alt = "Files, documents, tokens and packed sequences, each with its count and its rejects"
        yield Figure("funnel", funnel_svg(present_levels, tuple(present_splits)), caption, alt)


def _files(run: LoadedRun) -> tuple[int, Counter[str]]:
    """(number of files, reason -> number of rejected files), from sources.jsonl: one line per file."""
    artifact = run.last("ingest")
    try:
        files = list(read_jsonl(artifact.path / "sources.jsonl")) if artifact else []
    except (OSError, ValueError):
        files = []
    return len(files), Counter(file["rejected"] for file in files if file.get("rejected"))


def _rejected_notes(total: int, word: str, reasons: Any) -> tuple[str, ...]:
    if not total:
        return ()
    named = Counter({key: value for key, value in (reasons or {}).items() if is_number(value)}).most_common(2)
    return (f"{total:,} {word}", *(f"{value:,} {reason(key)}"[:36] for key, value in named))


def _counts(files: tuple[int, Counter[str]], curated: dict[str, Any], dataset: dict[str, Any]) -> Table:
    total, rejected = files[0], files[1].total()
    lines = [
        ("Files", f"{count(total - rejected)} with documents + {count(rejected)} rejected = {count(total)}"),
        ("Documents", f"{count(curated.get('documents_kept'))} kept + {count(curated.get('documents_dropped'))} "
                      f"rejected = {count(curated.get('documents_read'))} read"),
    ]  # fmt: skip
    if curated.get("reasons"):
        reasons = " + ".join(f"{count(value)} {reason(key)}" for key, value in curated["reasons"].items())
        lines.append(("Rejected", f"{reasons} = {count(_sum(curated['reasons']))}"))
    if curated.get("changed"):
        changes = ", ".join(f"{count(value)} {reason(key)}" for key, value in curated["changed"].items())
        lines.append(("Changed", f"{changes}; kept with changes"))
    lines.append(("Text", f"{size(curated.get('bytes_kept'))} of {size(curated.get('bytes_read'))} kept"))
    lines += _split_counts(dataset)
    return Table(("", ""), tuple(lines), "ll", "Every file, document and token is counted.")


def _split_counts(dataset: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Documents, tokens and packed sequences of the train and validation splits."""
    if is_number(dataset.get("train_documents")):
        train, validation = dataset["train_documents"], dataset.get("validation_documents", 0)
        yield (
            "Split",
            f"{count(train)} train + {count(validation)} validation = {count(train + validation)} kept",
        )
    if is_number(dataset.get("tokens")):
        splits = f"{count(dataset.get('train_tokens'))} train + {count(dataset.get('validation_tokens'))} validation"
        yield "Tokens", f"{splits} = {count(dataset['tokens'])}; {count(dataset.get('tokens_dropped'))} lost"
        total = (dataset.get("train_rows") or 0) + (dataset.get("validation_rows") or 0)
        splits = (
            f"{count(dataset.get('train_rows'))} + {count(dataset.get('validation_rows'))} = {count(total)}"
        )
        yield "Packed sequences", f"{splits}; {percent(dataset.get('padding_share'), 1)} padding"


def _sources(run: LoadedRun, curated: dict[str, Any]) -> Iterator[Block]:
    sources = curated.get("sources") or {}
    licences = _licences(run)
    names = [name for name in sources if isinstance(sources[name], dict)]
    if not names:
        return
    keys = ("documents_read", "documents_kept", "bytes_kept")
    lines = [(clip(name, 60), licences.get(name, ""), count(sources[name].get(keys[0])),
              count(sources[name].get(keys[1])), size(sources[name].get(keys[2]))) for name in names]  # fmt: skip
    total = len(lines) > 1
    if total:
        sums = [sum(sources[name].get(key) or 0 for name in names) for key in keys]
        lines.append(("total", "", count(sums[0]), count(sums[1]), size(sums[2])))
    yield Heading("The sources")
    yield Table(("source", "licence", "documents", "kept", "text"), tuple(lines), "llrrr", total=total)
    yield Heading("The longest documents")
    longest = tuple((clip(path, 80), count(length)) for path, length in _longest_documents(run))
    yield Table(("document", "bytes"), longest, "mr")


def _steps(curated: dict[str, Any]) -> Iterator[Block]:
    """Documents read, rejected and changed by each step of curation."""
    steps = {name: step for name, step in (curated.get("steps") or {}).items() if isinstance(step, dict)}
    if steps:
        yield Heading("Curation steps")
        lines = tuple((clip(name, 40), *(count(step.get(key, 0)) for key in ("documents", "dropped", "changed")))
                      for name, step in steps.items())  # fmt: skip
        yield Table(("step", "documents read", "rejected", "changed"), lines, "mrrr",
                    "In the order in which the steps run.")  # fmt: skip


def _languages(curated: dict[str, Any]) -> Iterator[Block]:
    """The languages of the corpus, when more than one was identified."""
    languages = curated.get("languages") or {}
    if len(languages) < 2:
        return
    yield Heading("The languages")
    most = sorted(languages.items(), key=lambda item: -item[1]["bytes"])[:12]
    lines = tuple(
        (_LANGUAGES.get(language, language), count(totals["documents"]), size(totals["bytes"]))
        for language, totals in most
    )
    yield Table(("language", "documents", "text"), lines, "lrr")


def _licences(run: LoadedRun) -> dict[str, str]:
    licences: defaultdict[str, set[str]] = defaultdict(set)
    for table in _documents(run, "curate"):
        pairs = zip(table.column("source").to_pylist(), table.column("licence").to_pylist(), strict=True)
        for source, licence in set(pairs):
            licences[source].add(visible(licence) if licence else "not stated")
    return {source: ", ".join(sorted(names)) for source, names in licences.items()}


def _longest_documents(run: LoadedRun) -> list[tuple[str, int]]:
    longest: list[tuple[str, int]] = []
    for table in _documents(run, "curate"):
        lengths = pc.binary_length(table.column("text")).to_pylist()
        longest += zip(table.column("path").to_pylist(), lengths, strict=True)
        longest = sorted(longest, key=lambda item: (-item[1], item[0]))[:5]
    return longest


def _rejects(run: LoadedRun) -> Iterator[Block]:
    entries = _example_rejects(run)
    if not entries:
        return
    yield Heading("Examples of rejects")
    lines = tuple(
        (clip(entry.path, 60), f"{reason(entry.reason)}{_threshold(entry)}{_detail(entry)}")
        for entry in entries
    )
    yield Table(("document", "reason"), lines, "ml",
                "From the rejects log, which has an entry for every rejected file and every rejected or changed "
                "document. `groundup inspect` searches it.")  # fmt: skip


def _example_rejects(run: LoadedRun) -> list[RejectsLogEntry]:
    """Some entries of the rejects logs, of as many different reasons as possible."""
    by_reason: defaultdict[tuple[str, str], list[RejectsLogEntry]] = defaultdict(list)
    for stage in ("ingest", "curate"):
        artifact = run.last(stage)
        if artifact is None:
            continue
        for entry in read_rejects_log(artifact.path):
            same = by_reason[(stage, entry.reason)]
            if entry.outcome != "changed" and len(same) < _EXAMPLES:
                same.append(entry)
    groups = [group for group in by_reason.values() if group]
    rounds = (group[turn] for turn in range(_EXAMPLES) for group in groups if turn < len(group))
    return [entry for _, entry in zip(range(_EXAMPLES), rounds, strict=False)]


def _threshold(entry: RejectsLogEntry) -> str:
    if not is_number(entry.value):
        return ""
    limit = f", threshold {_plain(entry.threshold)}" if is_number(entry.threshold) else ""
    return f": {_plain(entry.value)}{limit}"


def _detail(entry: RejectsLogEntry) -> str:
    return f" ({clip(entry.detail, 80)})" if entry.detail else ""


def _plain(value: Any) -> str:
    return count(value) if float(value).is_integer() else number(value)


def _documents(run: LoadedRun, stage: str) -> Iterator[Any]:
    artifact = run.last(stage)
    return iter_tables(artifact.path) if artifact else iter(())


def _sample(run: LoadedRun) -> tuple[str, str] | None:
    """The opening of a document of at least `_SAMPLE` characters: the one with the lowest id."""
    best: tuple[str, str, str] | None = None
    for table in _documents(run, "curate"):
        lengths = pc.utf8_length(table.column("text"))
        fitting = table.filter(
            pc.greater_equal(lengths, pa.scalar(min(_SAMPLE, pc.max(lengths).as_py() or 0)))
        )
        for row in fitting.select(["id", "path", "text"]).sort_by("id").slice(0, 1).to_pylist():
            if best is None or row["id"] < best[0]:
                best = (row["id"], row["path"], row["text"])
    return (best[1], "\n".join(best[2][:_SAMPLE].split("\n")[:18])) if best else None


def _longest(tokenizer: Tokenizer) -> Tokens:
    """The longest tokens of letters only."""
    encoded = (tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size))
    texts = {data.decode("utf-8", "ignore").strip(" ") for data in encoded if len(data) > 3}
    words = sorted((text for text in texts if text.isalpha()), key=lambda text: (-len(text), text))[:24]
    spans = [ColouredSpan(visible(text), 1 + index % 5) for index, text in enumerate(words)]
    spaced = [item for span in spans for item in (span, ColouredSpan("  "))]
    return Tokens(tuple(spaced), "The longest tokens that are whole words.")


def _sum(reasons: dict[str, Any] | None) -> int:
    return sum(value for value in (reasons or {}).values() if isinstance(value, int))
