"""Chapters 1 and 2: what went in, and how it was cut into tokens.

in:  the artifacts of ingest, curate, tokenizer, tokenize
out: chapters whose sums are shown
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from groundup.book.content import (
    Block,
    Chapter,
    Fact,
    Facts,
    Figure,
    Heading,
    Piece,
    Table,
    Tokens,
    prose,
    strong,
)
from groundup.book.format import clip, count, is_number, number, percent, reason, size, visible
from groundup.book.funnel import Level, Split, funnel_svg
from groundup.book.load_run import LoadedRun
from groundup.book.samples import token_pieces
from groundup.text.documents import RejectsLogEntry, iter_tables, read_rejects_log
from groundup.tokens.tokenizer import Tokenizer

_SAMPLE = 520
_EXAMPLES = 9
_LANGUAGES = {"": "none told", "und": "undetermined", "code": "source code"}


def what_went_in(story: LoadedRun) -> Chapter:
    """Sources -> files -> documents -> tokens -> rows, with every loss named."""
    files, kept = _files(story), story.metrics("curate")
    rows = story.metrics("tokenize")
    blocks: list[Block] = [
        prose("A language model knows what it has read, and nothing else. This one read ",
              strong(f"{count(kept.get('documents_kept'))} documents"), f", {size(kept.get('bytes_kept'))} of text. "
              "Here is where they came from, what was left out, and why.", role="lead"),
        *_funnel(files, kept, rows),
        Heading("The sums"),
        _sums(files, kept, rows),
    ]  # fmt: skip
    blocks += _steps(kept)
    blocks += _sources(story, kept)
    blocks += _languages(kept)
    blocks += _left_out(story, kept)
    return Chapter("What went in", tuple(blocks))


def tokenizer_chapter(story: LoadedRun) -> Chapter | None:
    """How well the text is cut, beside GPT-2, with a sample."""
    made = story.last("tokenizer")
    if made is None:
        return None
    figures = made.metrics
    blocks: list[Block] = [
        prose("A model does not see letters. Its text is first cut into ", strong("tokens"),
              ": pieces that were frequent enough in the corpus to deserve a number of their own. Better pieces "
              "mean more text in the same room, and less work for every page.", role="lead"),
        Facts(_tokenizer_facts(figures)),
    ]  # fmt: skip
    gpt2 = figures.get("gpt2_bytes_per_token")
    if is_number(gpt2) and is_number(figures.get("bytes_per_token")):
        gain = figures["bytes_per_token"] / gpt2 - 1
        better = "fewer" if gain > 0 else "more"
        blocks.append(
            prose(f"GPT-2's tokenizer, with its 50,257 tokens made for the web at large, gets {number(gpt2)} bytes "
                  f"of the same text into a token. Ours needs {percent(abs(1 - 1 / (1 + gain)))} {better} tokens for "
                  "it, since it was made from this corpus.")
        )  # fmt: skip
    tokenizer = Tokenizer.load(made.path)
    sample = _sample(story)
    if sample is not None:
        path, text = sample
        blocks.append(Tokens(token_pieces(text, tokenizer),
                             f"From {visible(path)}, as the model sees it: each colour is one token."))  # fmt: skip
    blocks += [Heading("The longest words"), _longest(tokenizer)]
    return Chapter("The tokenizer", tuple(blocks))


def _tokenizer_facts(figures: dict[str, Any]) -> tuple[Fact, ...]:
    facts = [
        Fact(count(figures.get("vocab_size")), "tokens in its vocabulary"),
        Fact(number(figures.get("bytes_per_token")), "bytes of unseen text in a token"),
    ]
    if is_number(figures.get("gpt2_bytes_per_token")):
        facts.append(Fact(number(figures["gpt2_bytes_per_token"]), "GPT-2's, on the same text"))
    return tuple(facts)


def _funnel(files: tuple[int, Counter[str]], kept: dict[str, Any], rows: dict[str, Any]) -> Iterator[Block]:
    found, reasons = files
    aside = reasons.total()
    levels = [
        Level("files found", found, found - aside, _leaving(aside, "files set aside", reasons)),
        Level("documents", int(kept.get("documents_read") or 0), int(kept.get("documents_kept") or 0),
              _leaving(int(kept.get("documents_dropped") or 0), "dropped", kept.get("reasons"))),
    ]  # fmt: skip
    splits = [
        Split("tokens", (("to learn from", int(rows.get("train_tokens") or 0)),
                         ("to measure on", int(rows.get("validation_tokens") or 0)))),
        Split("rows", (("to learn from", int(rows.get("train_rows") or 0)),
                       ("to measure on", int(rows.get("validation_rows") or 0)))),
    ]  # fmt: skip
    shown = [split for split in splits if sum(part for _, part in split.parts)]
    here = tuple(level for level in levels if level.total)
    if here:
        caption = ("The way of the data. A bar is as wide as what stayed of the bar above it; what left is named "
                   "beside it. Orange is held back to measure the model on.")  # fmt: skip
        alt = "Files, documents, tokens and rows, each with its count and what left at that step"
        yield Figure("funnel", funnel_svg(here, tuple(shown)), caption, alt)


def _files(story: LoadedRun) -> tuple[int, Counter[str]]:
    """(files found, reason -> files set aside), from the list of sources: each file is one line in it."""
    made = story.last("ingest")
    try:
        lines = (made.path / "sources.jsonl").read_text(encoding="utf-8").splitlines() if made else []
        files = [json.loads(line) for line in lines]
    except (OSError, ValueError):
        files = []
    return len(files), Counter(file["aside"] for file in files if file.get("aside"))


def _leaving(total: int, word: str, reasons: Any) -> tuple[str, ...]:
    if not total:
        return ()
    named = Counter({key: value for key, value in (reasons or {}).items() if is_number(value)}).most_common(2)
    return (f"{total:,} {word}", *(f"{value:,} {reason(key)}"[:36] for key, value in named))


def _sums(files: tuple[int, Counter[str]], kept: dict[str, Any], rows: dict[str, Any]) -> Table:
    found, aside = files[0], files[1].total()
    lines = [
        ("Files", f"{count(found - aside)} with documents + {count(aside)} set aside = {count(found)} found")
    ]
    lines.append(("Documents", f"{count(kept.get('documents_kept'))} kept + {count(kept.get('documents_dropped'))} "
                               f"dropped = {count(kept.get('documents_read'))} read"))  # fmt: skip
    if kept.get("reasons"):
        named = " + ".join(f"{count(value)} {reason(key)}" for key, value in kept["reasons"].items())
        lines.append(("Dropped", f"{named} = {count(_sum(kept['reasons']))}"))
    if kept.get("changed"):
        named = ", ".join(f"{count(value)} {reason(key)}" for key, value in kept["changed"].items())
        lines.append(("Changed", f"{named}; kept, but not as they came"))
    lines.append(("Text", f"{size(kept.get('bytes_kept'))} of {size(kept.get('bytes_read'))} kept"))
    if is_number(rows.get("train_documents")):
        learn, measure = rows["train_documents"], rows.get("validation_documents", 0)
        words = (
            f"{count(learn)} to learn from + {count(measure)} to measure on = {count(learn + measure)} kept"
        )
        lines.append(("Split", words))
    if is_number(rows.get("tokens")):
        learn, measure = count(rows.get("train_tokens")), count(rows.get("validation_tokens"))
        parts = f"{learn} to learn from + {measure} to measure on"
        lines.append(
            ("Tokens", f"{parts} = {count(rows['tokens'])}; {count(rows.get('tokens_dropped'))} lost")
        )
        total = (rows.get("train_rows") or 0) + (rows.get("validation_rows") or 0)
        parts = f"{count(rows.get('train_rows'))} + {count(rows.get('validation_rows'))} = {count(total)}"
        lines.append(("Rows", f"{parts}; {percent(rows.get('padding_share'), 1)} of their places are empty"))
    return Table(("", ""), tuple(lines), "ll", "Nothing disappears without being counted.")


def _sources(story: LoadedRun, kept: dict[str, Any]) -> Iterator[Block]:
    sources = kept.get("sources") or {}
    licences = _licences(story)
    names = [name for name in sources if isinstance(sources[name], dict)]
    if not names:
        return
    keys = ("documents_read", "documents_kept", "bytes_kept")
    lines = [(clip(name, 60), licences.get(name, ""), count(sources[name].get(keys[0])),
              count(sources[name].get(keys[1])), size(sources[name].get(keys[2]))) for name in names]  # fmt: skip
    total = len(lines) > 1
    if total:
        sums = [sum(sources[name].get(key) or 0 for name in names) for key in keys]
        lines.append(("all", "", count(sums[0]), count(sums[1]), size(sums[2])))
    yield Heading("The sources")
    yield Table(("source", "licence", "documents", "kept", "text"), tuple(lines), "llrrr", total=total)
    yield Heading("The longest documents")
    longest = tuple((clip(path, 80), count(length)) for path, length in _longest_documents(story))
    yield Table(("document", "bytes"), longest, "mr")


def _steps(kept: dict[str, Any]) -> Iterator[Block]:
    """What each step of curation met, and what it did to it."""
    steps = {name: said for name, said in (kept.get("steps") or {}).items() if isinstance(said, dict)}
    if steps:
        yield Heading("Step by step")
        lines = tuple((clip(name, 40), *(count(said.get(key, 0)) for key in ("documents", "dropped", "changed")))
                      for name, said in steps.items())  # fmt: skip
        yield Table(("step", "documents it met", "dropped", "changed"), lines, "mrrr",
                    "In the order in which they judged.")  # fmt: skip


def _languages(kept: dict[str, Any]) -> Iterator[Block]:
    """The languages of the corpus, if it is known to have more than one."""
    languages = kept.get("languages") or {}
    if len(languages) < 2:
        return
    yield Heading("The languages")
    most = sorted(languages.items(), key=lambda item: -item[1]["bytes"])[:12]
    lines = tuple(
        (_LANGUAGES.get(language, language), count(said["documents"]), size(said["bytes"]))
        for language, said in most
    )
    yield Table(("language", "documents", "text"), lines, "lrr")


def _licences(story: LoadedRun) -> dict[str, str]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for table in _documents(story, "curate"):
        pairs = zip(table.column("source").to_pylist(), table.column("licence").to_pylist(), strict=True)
        for source, licence in set(pairs):
            found[source].add(visible(licence) if licence else "not stated")
    return {source: ", ".join(sorted(names)) for source, names in found.items()}


def _longest_documents(story: LoadedRun) -> list[tuple[str, int]]:
    longest: list[tuple[str, int]] = []
    for table in _documents(story, "curate"):
        lengths = pc.binary_length(table.column("text")).to_pylist()
        longest += zip(table.column("path").to_pylist(), lengths, strict=True)
        longest = sorted(longest, key=lambda item: (-item[1], item[0]))[:5]
    return longest


def _left_out(story: LoadedRun, kept: dict[str, Any]) -> Iterator[Block]:
    entries = _examples(story)
    if not entries:
        return
    yield Heading("What was left out, for example")
    lines = tuple(
        (clip(entry.path, 60), f"{reason(entry.reason)}{_against(entry)}{_detail(entry)}")
        for entry in entries
    )
    yield Table(("document", "why"), lines, "ml",
                "From the ledger, which names every document that was dropped or changed and every file set aside. "
                "It lies beside the documents; `groundup inspect` looks things up in it.")  # fmt: skip


def _examples(story: LoadedRun) -> list[RejectsLogEntry]:
    """Some entries of the ledgers, as many different reasons as possible."""
    by_reason: defaultdict[tuple[str, str], list[RejectsLogEntry]] = defaultdict(list)
    for stage in ("ingest", "curate"):
        made = story.last(stage)
        if made is None:
            continue
        for entry in read_rejects_log(made.path):
            same = by_reason[(stage, entry.reason)]
            if entry.fate != "changed" and len(same) < _EXAMPLES:
                same.append(entry)
    groups = [group for group in by_reason.values() if group]
    rounds = (group[turn] for turn in range(_EXAMPLES) for group in groups if turn < len(group))
    return [entry for _, entry in zip(range(_EXAMPLES), rounds, strict=False)]


def _against(entry: RejectsLogEntry) -> str:
    if not is_number(entry.value):
        return ""
    limit = f", the limit is {_plain(entry.threshold)}" if is_number(entry.threshold) else ""
    return f": {_plain(entry.value)}{limit}"


def _detail(entry: RejectsLogEntry) -> str:
    return f" ({clip(entry.detail, 80)})" if entry.detail else ""


def _plain(value: Any) -> str:
    return count(value) if float(value).is_integer() else number(value)


def _documents(story: LoadedRun, stage: str) -> Iterator[Any]:
    made = story.last(stage)
    return iter_tables(made.path) if made else iter(())


def _sample(story: LoadedRun) -> tuple[str, str] | None:
    """The opening of the document whose id comes first among those that are long enough to show."""
    best: tuple[str, str, str] | None = None
    for table in _documents(story, "curate"):
        lengths = pc.utf8_length(table.column("text"))
        fitting = table.filter(
            pc.greater_equal(lengths, pa.scalar(min(_SAMPLE, pc.max(lengths).as_py() or 0)))
        )
        for row in fitting.select(["id", "path", "text"]).sort_by("id").slice(0, 1).to_pylist():
            if best is None or row["id"] < best[0]:
                best = (row["id"], row["path"], row["text"])
    return (best[1], "\n".join(best[2][:_SAMPLE].split("\n")[:18])) if best else None


def _longest(tokenizer: Tokenizer) -> Tokens:
    """The longest tokens that are words."""
    spelled = (tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size))
    texts = {data.decode("utf-8", "ignore").strip(" ") for data in spelled if len(data) > 3}
    words = sorted((text for text in texts if text.isalpha()), key=lambda text: (-len(text), text))[:24]
    pieces = [Piece(visible(text), 1 + index % 5) for index, text in enumerate(words)]
    spaced = [item for piece in pieces for item in (piece, Piece("  "))]
    return Tokens(tuple(spaced), "The longest words that got a number of their own.")


def _sum(reasons: dict[str, Any] | None) -> int:
    return sum(value for value in (reasons or {}).values() if isinstance(value, int))
