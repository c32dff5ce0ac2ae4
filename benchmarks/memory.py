"""Peak memory of curating a large corpus, up to deduplication.

in:  a folder made by planted_corpus.py; FOLDER for a larger corpus, made once of its texts, each copy mutated
out: a line per second of the run is sampled; the highest sum of resident memory over all processes, seconds, MB/s

    .venv/bin/python benchmarks/memory.py PLANTED FOLDER --gigabytes 5

A page that two processes share counts twice.
"""

import argparse
import itertools
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import zstandard

FILE_BYTES = 128_000_000
WORDS = ["".join(parts) for parts in itertools.product(("la", "mo", "ti", "su", "ke"), repeat=5)]
BLUEPRINT = """\
name = "large"
[[ingest.sources]]
use = "files"
paths = ["{folder}/corpus"]
[curate]
steps = [
    {{ use = "repair" }}, {{ use = "language" }}, {{ use = "length" }}, {{ use = "privacy" }},
]
[curate.mix]
shuffle = true
"""


def mutated(planted: Path, draw: random.Random) -> Iterator[str]:
    """The planted texts, repeated; from the second time on with one word in twenty replaced."""
    first = True
    while True:
        for shard in sorted((planted / "documents").glob("*.parquet")):
            for text in pq.read_table(shard, columns=["text"])["text"].to_pylist():
                yield text if first else _mutated(text, draw)
        first = False


def _mutated(text: str, draw: random.Random) -> str:
    words, others = text.split(" "), WORDS[draw.randrange(1000) :]
    for _ in range(len(words) // 20):
        words[int(draw.random() * len(words))] = others[int(draw.random() * 1000)]
    return " ".join(words)


def build(planted: Path, folder: Path, gigabytes: float) -> None:
    """Write FOLDER/corpus/*.jsonl.zst."""
    (folder / "corpus").mkdir(parents=True)
    texts, size, number = mutated(planted, random.Random(3)), 0, 0
    while size < gigabytes * 1e9:
        written = 0
        with zstandard.open(
            folder / "corpus" / f"{number:03d}.jsonl.zst", "wb", cctx=zstandard.ZstdCompressor(1)
        ) as file:
            while written < FILE_BYTES:
                text = next(texts)
                file.write(json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n")
                written += len(text.encode())
        size, number = size + written, number + 1
    (folder / "size.json").write_text(json.dumps(size))


def resident(session: int) -> int:
    """Bytes of resident memory of every process of a session."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if int((process / "stat").read_text().rsplit(")", 1)[1].split()[3]) == session:
                total += int((process / "statm").read_text().split()[1]) * 4096
        except (OSError, ValueError, IndexError):
            continue  # it is gone by now
    return total


def main(planted: Path, folder: Path, gigabytes: float) -> None:
    """Run the curation, sample its memory, print the result."""
    if not (folder / "size.json").exists():
        build(planted, folder, gigabytes)
    size = json.loads((folder / "size.json").read_text())
    (folder / "large.toml").write_text(BLUEPRINT.format(folder=folder.resolve()))
    command = [sys.executable, "-m", "groundup.cli", "run", str(folder / "large.toml"), "--until", "curate"]
    began = time.monotonic()
    process = subprocess.Popen([*command, "--workspace", str(folder / "workspace")], start_new_session=True)
    most = 0
    over = threading.Event()
    threading.Thread(target=lambda: (process.wait(), over.set())).start()
    while not over.wait(0.5):
        most = max(most, resident(process.pid))
    seconds = time.monotonic() - began
    rate = size / seconds / 1e6
    print(f"exit {process.returncode}; {size / 1e9:.2f} GB of text in {seconds:.0f} s ({rate:.1f} MB/s); "
          f"at most {most / 1e9:.2f} GB resident in all processes together")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("planted", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=5)
    given = parser.parse_args()
    main(given.planted, given.folder, given.gigabytes)
