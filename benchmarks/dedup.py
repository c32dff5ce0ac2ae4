"""Fuzzy deduplication from shards to kept documents, against datatrove on the same documents and cores.

in:  a folder made by planted_corpus.py; a Python that has datatrove (see datatrove_peer.py)
out: a table of seconds, MB/s, recall on the planted pairs and precision; the kernels' speed on one core

    .venv/bin/python benchmarks/planted_corpus.py CORPUS --megabytes 200 --data ../shared/data
    .venv/bin/python benchmarks/dedup.py CORPUS --peer PEER/bin/python

Both use two processes. Seconds begin after the imports, workers being started included, and end when the kept documents
are on disk. Recall: planted pairs of Jaccard >= 0.8 that ended in one cluster. Precision: removed documents that have,
among at most 60 of their cluster, one of Jaccard >= 0.8. Both by Python sets of word strings, which neither side uses.
"""

import argparse
import json
import multiprocessing
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from planted_corpus import jaccard, shingles

from groundup.core.progress import Reporter
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, StageContext
from groundup.text.batch import DocumentBatch
from groundup.text.curate.curate import Curate, curate
from groundup.text.curate.dedup import Dedup
from groundup.text.curate.dedup.clusters import find_duplicates
from groundup.text.curate.dedup.minhash import band_keys, minhash, permutations
from groundup.text.curate.dedup.minhash import shingles as shingle_sets
from groundup.text.curate.dedup.signatures import signatures, text_key, write_signatures

WORKERS = 2
SIMILAR = 0.8
OURS = ("groundup, the same pipeline", "groundup, the stage `curate`")
Clusters = dict[int, int]


def batches(shard: Path, rows: int = 512) -> Iterator[DocumentBatch]:
    """A shard's documents, a few hundred at a time."""
    with pq.ParquetFile(shard) as file:
        for part in file.iter_batches(rows, use_threads=False):
            yield DocumentBatch(pa.Table.from_batches([part]))


def sign(shard: Path, out: Path, recipe: Dedup) -> None:
    """Map: one shard."""
    write_signatures(out / shard.stem, batches(shard), recipe)


def keep(shard: Path, rows: Any, out: Path) -> None:
    """One shard's documents but for `rows`."""
    table = pq.read_table(shard, use_threads=False)
    stays = np.ones(table.num_rows, dtype=bool)
    stays[rows] = False
    pq.write_table(table.filter(pa.array(stays)), out / shard.name, compression="zstd")


def pipeline(corpus: Path, out: Path, recipe: Dedup) -> tuple[dict[str, float], Clusters]:
    """Seconds of what datatrove's four stages do, and the cluster of every document in one."""
    shards = sorted((corpus / "documents").glob("*.parquet"))
    (out / "kept").mkdir(parents=True)
    clock = [time.perf_counter()]
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(WORKERS, mp_context=context) as pool:
        list(pool.map(partial(sign, out=out, recipe=recipe), shards))
        clock.append(time.perf_counter())
        found = find_duplicates([out / shard.stem for shard in shards], recipe)
        clock.append(time.perf_counter())
        rows = [found.rows_of(shard) for shard in range(len(shards))]
        list(pool.map(partial(keep, out=out / "kept"), shards, rows))
        clock.append(time.perf_counter())
    first = np.cumsum([0, *(pq.read_metadata(shard).num_rows for shard in shards)])
    clusters: Clusters = {}
    for places in ((found.shard, found.row), (found.kept_shard, found.kept_row)):
        number = first[places[0]] + places[1]
        clusters |= dict(zip(number.tolist(), found.cluster.tolist(), strict=True))
    return dict(zip(("signatures", "clusters", "filter"), np.diff(clock).tolist(), strict=True)), clusters


def stage(corpus: Path, out: Path, recipe: Dedup) -> tuple[dict[str, float], Clusters]:
    """The same of the stage `curate` without any step, which also writes the ledger and the measures."""
    began = time.perf_counter()
    raw = Artifact(corpus, "0" * 64, "ingest", "raw_corpus")
    curate(
        Curate(steps=(), dedup=recipe),
        Runtime(workers=WORKERS),
        StageContext(out, Reporter(quiet=True)),
        raw,
        {},
    )
    seconds = time.perf_counter() - began
    files = sorted((corpus / "documents").glob("*.parquet"))
    ids = pa.concat_tables(pq.read_table(file, columns=["id"]) for file in files)["id"].to_pylist()
    number = {identity: row for row, identity in enumerate(ids)}
    clusters: Clusters = {}
    for pair in pq.read_table(out / "clusters.parquet").to_pylist():
        clusters[number[pair["id"]]] = clusters[number[pair["kept"]]] = number[pair["kept"]]
    return {"curate": seconds}, clusters


def datatrove(python: str, corpus: Path, out: Path, tokenizer: str) -> tuple[dict[str, float], Clusters]:
    """The same of the peer."""
    script = Path(__file__).with_name("datatrove_peer.py")
    command = [python, str(script), str(corpus), str(out), tokenizer]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    said = json.loads(done.stdout.splitlines()[-1])
    print(f"datatrove, {tokenizer}: {said['versions']}")
    found = json.loads((out / "clusters.json").read_text())
    return said["seconds"], {int(row): cluster for row, cluster in found.items()}


def quality(corpus: Path, clusters: Clusters) -> str:
    """Recall, precision and the number removed."""
    table = pa.concat_tables(pq.read_table(file) for file in sorted((corpus / "documents").glob("*.parquet")))
    ids, texts = table["id"].to_pylist(), table["text"]
    number = {identity: at for at, identity in enumerate(ids)}
    pairs = [
        (number[a], number[b])
        for a, b, _, similarity in json.loads((corpus / "truth.json").read_text())
        if similarity >= SIMILAR
    ]
    met = sum(clusters.get(a, -1 - a) == clusters.get(b, -1 - b) for a, b in pairs)
    members: dict[int, list[int]] = defaultdict(list)
    for row in sorted(clusters):
        members[clusters[row]].append(row)
    removed = right = 0
    for rows in members.values():
        sets = [shingles(texts[row].as_py()) for row in rows]
        removed += len(rows) - 1
        right += sum(
            any(jaccard(mine, other) >= SIMILAR for k, other in enumerate(sets[:60]) if k != at)
            or (not mine and len(sets) > 1)
            for at, mine in enumerate(sets[1:], start=1)
        )
    return f"{met / len(pairs):.4f} | {right / max(removed, 1):.4f} | {removed}"


def kernels(corpus: Path, recipe: Dedup) -> None:
    """MB/s of every part of the map on one core, and of all of it."""
    parts = [
        batch for shard in sorted((corpus / "documents").glob("*.parquet"))[:3] for batch in batches(shard)
    ]
    megabytes = sum(int(batch.bytes.sum()) for batch in parts) / 1e6
    sets: list[Any] = []
    minimum: list[Any] = []
    multipliers = permutations(recipe.bands * recipe.rows, recipe.seed)
    steps: dict[str, Callable[[int, DocumentBatch], object]] = {
        "exact keys": lambda _, batch: [text_key(text) for text in batch.texts],
        "words": lambda _, batch: batch.plain_words,
        "word hashes": lambda _, batch: batch.plain_words.hashes,
        "n-gram sets": lambda _, batch: sets.append(shingle_sets(batch.plain_words, recipe.ngram)),
        "minima": lambda at, _: minimum.append(minhash(*sets[at], multipliers)),
        "band keys": lambda at, _: band_keys(minimum[at], recipe.bands, recipe.rows),
    }
    print(f"\n| one core, {megabytes:.0f} MB | MB/s |\n|---|---|")
    for name, step in steps.items():
        print(f"| {name} | {megabytes / _seconds(step, parts):.0f} |")
    fresh = [DocumentBatch(batch.documents) for batch in parts]
    print(
        f"| all signatures | {megabytes / _seconds(lambda _, batch: signatures(batch, recipe), fresh):.0f} |"
    )


def _seconds(step: Callable[[int, DocumentBatch], object], parts: list[DocumentBatch]) -> float:
    began = time.perf_counter()
    for at, batch in enumerate(parts):
        step(at, batch)
    return time.perf_counter() - began


def main(corpus: Path, peer: str | None, recipe: Dedup) -> None:
    """Print the tables."""
    sizes = [
        sum(int(batch.bytes.sum()) for batch in batches(s)) for s in (corpus / "documents").glob("*.parquet")
    ]
    megabytes = sum(sizes) / 1e6
    runs: dict[str, Callable[[Path], tuple[dict[str, float], Clusters]]] = {
        OURS[0]: partial(pipeline, corpus, recipe=recipe),
        OURS[1]: partial(stage, corpus, recipe=recipe),
    }
    for tokenizer in ("whitespace", "english") if peer else ():
        runs[f"datatrove, {tokenizer}"] = partial(datatrove, peer, corpus, tokenizer=tokenizer)
    rows, rate = [], {}
    for name, run in runs.items():
        with tempfile.TemporaryDirectory() as out:  # on the same disk for both
            seconds, clusters = run(Path(out) / "out")
        total = sum(seconds.values())
        rate[name] = megabytes / total
        spelled = ", ".join(f"{stage} {value:.1f}" for stage, value in seconds.items())
        peer = name.startswith("datatrove")
        ratios = " | ".join(f"{rate[ours] / rate[name]:.1f}" if peer else "" for ours in OURS)
        rows.append(
            f"| {name} | {total:.1f} ({spelled}) | {rate[name]:.2f} | {ratios} | {quality(corpus, clusters)} |"
        )
    print(f"\n{megabytes:.0f} MB; {recipe!r}")
    print(
        "| | seconds, two processes | MB/s | the pipeline is x as fast | the stage | recall | precision | removed |"
    )
    print("\n".join(["|---|---|---|---|---|---|---|---|", *rows]))
    kernels(corpus, recipe)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--peer", help="the Python of an environment with datatrove")
    parser.add_argument("--recipe", type=json.loads, default={}, help="fields of Dedup as JSON")
    given = parser.parse_args()
    main(given.corpus, given.peer, Dedup(**given.recipe))
