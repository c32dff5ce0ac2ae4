"""Speed of every curation step, in one process.

in:  a folder with documents/*.parquet: an artifact of ingest, or what planted_corpus.py makes
out: MB/s of each step alone, segmentation included, and of all steps on the same batches

    .venv/bin/python benchmarks/steps.py FOLDER --megabytes 20
"""

import argparse
import time
from itertools import islice
from pathlib import Path
from typing import Any

from groundup.core.registry import Plugin
from groundup.text.batch import DocumentBatch
from groundup.text.curate.filter_pass import pieces
from groundup.text.documents import iter_tables

NEED_MODELS = ("model_filter", "names")
TIMES = 3


def seconds(steps: list[Any], tables: list[Any]) -> float:
    """The least of TIMES."""
    found = []
    for _ in range(TIMES):
        began = time.perf_counter()
        for table in tables:
            batch = DocumentBatch(table)
            for step in steps:
                step.apply(batch)
        found.append(time.perf_counter() - began)
    return min(found)


def main(folder: Path, megabytes: int) -> None:
    """Print the table."""
    cut = (piece for table in iter_tables(folder) for piece in pieces(table))
    tables = list(islice(cut, max(1, megabytes // 4)))
    size = sum(int(DocumentBatch(table).bytes.sum()) for table in tables) / 1e6
    slot = Plugin("groundup.text.curate.steps")
    steps = {name: slot.load(name)() for name in slot.names() if name not in NEED_MODELS}
    print(f"| {size:.0f} MB, one process | MB/s |\n|---|---|")
    for name, step in steps.items():
        print(f"| {name} | {size / seconds([step], tables):.0f} |")
    print(f"| all of them | {size / seconds(list(steps.values()), tables):.1f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=int, default=20)
    given = parser.parse_args()
    main(given.folder, given.megabytes)
