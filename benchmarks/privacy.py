"""Recall, false positives and speed of the privacy step. Prints Markdown.

in:  JSON lines with `text` almost without PII: novels
out: recall per kind on synthetic PII; replacements in the original texts per million words, with examples; MB/s of one
     process

    python benchmarks/privacy.py novels-*.jsonl.gz
"""

import argparse
import gzip
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from groundup.doctor.synthetic_pii import plant, recall
from groundup.text.batch import DocumentBatch
from groundup.text.curate.steps.privacy import PLACEHOLDERS, Privacy
from groundup.text.documents import DOCUMENT_SCHEMA
from groundup.text.pii import KINDS

PER_KIND = 1000
ROWS = 64
"""Documents per batch; novels are long."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("texts", type=Path, nargs="+")
    parser.add_argument("--examples", type=int, default=3)
    args = parser.parse_args()
    texts = [text for path in args.texts for text in read(path)]
    matches, seconds = search(texts)
    print_table(recall(Privacy(), plant(texts, seed=17, per_kind=PER_KIND)), matches, texts, args.examples)
    size = sum(len(text.encode()) for text in texts)
    print(f"\n{len(texts)} documents, {size / 1e6:.1f} MB: {size / 1e6 / seconds:.1f} MB/s, one process")


def read(path: Path) -> Iterator[str]:
    with (
        gzip.open(path, "rt", encoding="utf-8")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8") as file
    ):
        for line in file:
            yield json.loads(line)["text"]


def search(texts: list[str]) -> tuple[dict[str, list[str]], float]:
    """What the step would replace, by kind, with a few words around; and the seconds it took."""
    blank, step = dict.fromkeys(DOCUMENT_SCHEMA.names, ""), Privacy()
    matches: dict[str, list[str]] = defaultdict(list)
    step.find(
        DocumentBatch(pa.Table.from_pylist([blank], DOCUMENT_SCHEMA))
    )  # expressions are compiled before the clock runs
    seconds = 0.0
    for at in range(0, len(texts), ROWS):
        rows = [blank | {"text": text} for text in texts[at : at + ROWS]]
        batch = DocumentBatch(pa.Table.from_pylist(rows, DOCUMENT_SCHEMA))
        started = time.perf_counter()
        step.apply(batch)
        seconds += time.perf_counter() - started
        for row, findings in step.find(batch).items():
            for start, end, kind in findings:
                around = batch.texts[row][max(0, start - 30) : end + 10]
                matches[kind].append(" ".join(around.replace("|", " ").split()))
    return matches, seconds


def print_table(
    share: dict[str, float], matches: dict[str, list[str]], texts: list[str], examples: int
) -> None:
    words = sum(len(text.split()) for text in texts)
    print(
        f"| kind | placeholder | planted | recall | replaced in {words / 1e6:.1f} M words | per M words | examples |"
    )
    print("|---|---|---|---|---|---|---|")
    for kind in (*KINDS, "obfuscated_email"):
        sample = "; ".join(f"`{example}`" for example in matches[kind][:examples])
        counts = f"{len(matches[kind])} | {len(matches[kind]) / words * 1e6:.2f}"
        name = f"`{PLACEHOLDERS[kind]}` | {PER_KIND} | {share[kind]:.3f}" if kind in KINDS else None
        row = f"{name} | {counts}" if name else f"`<EMAIL>` | {PER_KIND} | {share[kind]:.3f} | as e-mail |"
        print(f"| {kind} | {row} | {sample} |")


if __name__ == "__main__":
    main()
