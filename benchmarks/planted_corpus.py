"""A corpus for deduplication with known answers: the texts of this machine, plus edited copies of known Jaccard.

in:  documentation, man pages, headers and Python sources of this machine, and the texts in a data folder
out: FOLDER/documents/*.parquet (DOCUMENT_SCHEMA) and FOLDER/truth.json: rows [id, id of the copy, edit, Jaccard]

The true Jaccard of a pair is over sets of 5-word shingles of `\\w+` in the lower-cased text, computed here with
Python sets, so that nothing of what is measured takes part in it.

    .venv/bin/python benchmarks/planted_corpus.py FOLDER --megabytes 200 --data ../shared/data
"""

import argparse
import gzip
import json
import random
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from groundup.text.documents import DOCUMENT_SCHEMA

ROOTS = ("/usr/share/doc", "/usr/share/man", "/usr/include", "/usr/share/perl", "/usr/lib/python3",
         f"{sys.base_prefix}/lib", f"{sys.prefix}/lib")  # fmt: skip
READABLE = re.compile(r"\.(py|pyi|txt|md|rst|h|hpp|html|pm|pod|\d|gz)$")
DOCUMENT_CHARS = 12_000
SHARD_BYTES = 16 << 20
WORD = re.compile(r"\w+")
EDITS = ("case", "substitute", "delete", "insert", "block", "truncate", "boilerplate", "shuffle")
BOILERPLATE = (
    "Subscribe to our newsletter and follow us for more updates on this topic. All rights reserved. ",
    "Click here to accept cookies and continue reading this article. Privacy policy and terms of use apply. ",
)


def shingles(text: str, n: int = 5) -> frozenset[str]:
    """The set of n-word runs; a text with fewer words is one run."""
    words = WORD.findall(text.lower())
    count = max(len(words) - n + 1, min(len(words), 1))
    return frozenset(" ".join(words[at : at + n]) for at in range(count))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Shared shingles over all of both; 0 for two empty sets."""
    return len(a & b) / len(a | b) if a or b else 0.0


def build(folder: Path, megabytes: int, data: Path | None, seed: int = 1) -> None:
    """Write documents and truth; `megabytes` is the size of all texts, copies included."""
    draw = random.Random(seed)
    documents: dict[str, str] = {}
    pairs: list[tuple[str, str, str, float]] = []
    vocabulary: list[str] = []
    size, seen = 0, set[str]()
    for number, text in enumerate(texts_below(ROOTS, data, draw)):
        if size >= megabytes * 1_000_000:
            break
        if text in seen:
            continue
        seen.add(text)
        if len(vocabulary) < 200_000:
            vocabulary += text.split()
        copies = list(_copies(text, vocabulary, draw)) if draw.random() < 0.15 else []
        documents[f"b{number}"] = text
        for at, (edit, copy, similarity) in enumerate(copies):
            documents[f"c{number}-{at}"] = copy
            pairs.append((f"b{number}", f"c{number}-{at}", edit, round(similarity, 4)))
        size += len(text.encode()) + sum(len(copy.encode()) for _, copy, _ in copies)
    _write(folder, documents, draw)
    (folder / "truth.json").write_text(json.dumps(pairs), encoding="utf-8")
    print(f"{len(documents)} documents, {size / 1e6:.1f} MB, {len(pairs)} planted pairs in {folder}")


def edited(text: str, edit: str, share: float, vocabulary: list[str], draw: random.Random) -> str:
    """A copy of `text` with about `share` of its words touched, the way `edit` says."""
    parts = re.split(r"(\s+)", text)
    words = [at for at in range(0, len(parts), 2) if parts[at]]
    if edit == "case":
        return text.upper() if draw.random() < 0.5 else re.sub(r"([,;:])", r" \1 ", text)
    if edit == "truncate":
        return "".join(parts[: max(2, int(len(parts) * (1 - share)))])
    if edit == "boilerplate":
        added = draw.choice(BOILERPLATE) * max(1, int(len(words) * share / 18))
        return added + text if draw.random() < 0.5 else f"{text}\n{added}"
    if edit == "shuffle":
        lines = text.split("\n")
        for _ in range(max(1, int(len(lines) * share))):
            a, b = draw.randrange(len(lines)), draw.randrange(len(lines))
            lines[a], lines[b] = lines[b], lines[a]
        return "\n".join(lines)
    if edit == "block":
        width = int(len(words) * share)
        begin = draw.randrange(len(words) - width + 1)
        touched = words[begin : begin + width]
    else:
        touched = [at for at in words if draw.random() < share]
    for at in touched:
        word = draw.choice(vocabulary)
        parts[at] = {"delete": "", "insert": f"{parts[at]} {word}"}.get(edit, word)
    return "".join(parts)


def _copies(text: str, vocabulary: list[str], draw: random.Random) -> Iterator[tuple[str, str, float]]:
    """(edit, copy, Jaccard) of one to three edited copies; now and then an exact one, also of a short text."""
    if draw.random() < 0.25:
        yield "exact", text, 1.0
    original = shingles(text)
    if len(original) < 40:
        return
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        edit = draw.choice(EDITS)
        few = edit in ("substitute", "delete", "insert")
        copy = edited(
            text, edit, draw.uniform(0.004, 0.04) if few else draw.uniform(0.02, 0.4), vocabulary, draw
        )
        yield edit, copy, jaccard(original, shingles(copy))


def texts_below(places: Sequence[str], data: Path | None, draw: random.Random) -> Iterator[str]:
    """Texts of at most DOCUMENT_CHARS, files in a seeded order."""
    roots = [Path(root) for root in places if Path(root).is_dir()]
    files = [file for root in roots for file in sorted(root.rglob("*")) if READABLE.search(file.name)]
    if data is not None:
        files += sorted(file for file in data.rglob("*") if "html" not in file.parts)
    draw.shuffle(files)
    for file in files:
        if file.is_file() and not file.is_symlink() and file.stat().st_size < 20_000_000:
            yield from _read(file)


def _read(file: Path) -> Iterator[str]:
    raw = file.read_bytes()
    if file.suffix == ".gz" and raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    elif file.suffix == ".zst":
        raw = zstandard.ZstdDecompressor().decompressobj().decompress(raw)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return  # an archive, a table, an old charset: there is enough else
    if "\0" in text:
        return
    if ".jsonl" in file.suffixes:
        for line in filter(None, text.split("\n")):  # splitlines would also cut at U+2028
            yield from _split(max((value for value in _strings(json.loads(line))), key=len, default=""))
    else:
        yield from _split(text)


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _split(text: str) -> Iterator[str]:
    """Cut at line ends into pieces of at most DOCUMENT_CHARS."""
    while len(text) > DOCUMENT_CHARS:
        cut = text.rfind("\n", DOCUMENT_CHARS // 2, DOCUMENT_CHARS) + 1 or DOCUMENT_CHARS
        yield text[:cut]
        text = text[cut:]
    if text.strip():
        yield text


def _write(folder: Path, documents: dict[str, str], draw: random.Random) -> None:
    (folder / "documents").mkdir(parents=True, exist_ok=True)
    order = list(documents)
    draw.shuffle(order)
    rows: list[dict[str, str]] = []
    size = shard = 0
    for identity in order:
        rows.append(dict.fromkeys(DOCUMENT_SCHEMA.names, "") | {"id": identity, "text": documents[identity]})
        size += len(documents[identity].encode())
        if size >= SHARD_BYTES or identity == order[-1]:
            table = pa.Table.from_pylist(rows, DOCUMENT_SCHEMA)
            pq.write_table(
                table, folder / "documents" / f"{shard:05d}.parquet", compression="zstd", row_group_size=1024
            )
            rows, size, shard = [], 0, shard + 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    build(given.folder, given.megabytes, given.data)
