"""datatrove's MinHash pipeline from shards to kept documents; runs in an environment of its own.

in:  CORPUS/documents/*.parquet
out: OUT/kept/*.parquet, OUT/clusters.json {row over all shards: cluster}, and one line of JSON with seconds per stage

    python3 -m venv peer && peer/bin/pip install -r benchmarks/datatrove.txt
    peer/bin/python benchmarks/datatrove_peer.py CORPUS OUT english|whitespace
"""

import json
import struct
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pyarrow.parquet as pq
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import ParquetWriter
from datatrove.utils.word_tokenizers import WordTokenizer

WORKERS = 2


class Whitespace(WordTokenizer):
    """Words are what stands between white space."""

    def word_tokenize(self, text):
        return text.split()

    def sent_tokenize(self, text):
        return [text]

    def span_tokenize(self, text):
        return []


def stages(corpus: Path, out: Path, tokenizer: str, shards: int):
    """(name, pipeline, tasks) in the order of the documentation, every setting its default."""
    reader = ParquetReader(str(corpus / "documents"), glob_pattern="*.parquet")
    language = "eng" if tokenizer == "english" else Whitespace("")
    signatures, buckets, remove = (str(out / name) for name in ("signatures", "buckets", "remove"))
    yield "signatures", [reader, MinhashDedupSignature(signatures, language=language)], shards
    yield "buckets", [MinhashDedupBuckets(signatures, buckets)], 14
    yield "clusters", [MinhashDedupCluster(buckets, remove, save_cluster_id=True)], 1
    writer = ParquetWriter(str(out / "kept"), compression="zstd")
    yield "filter", [reader, MinhashDedupFilter(remove), writer], shards


def main(corpus: Path, out: Path, tokenizer: str) -> None:
    """Run the stages, then say what they took and found."""
    rows = [pq.read_metadata(file).num_rows for file in sorted((corpus / "documents").glob("*.parquet"))]
    seconds = {}
    for name, pipeline, tasks in stages(corpus, out, tokenizer, len(rows)):
        began = time.perf_counter()
        LocalPipelineExecutor(
            pipeline=pipeline, tasks=tasks, workers=WORKERS, logging_dir=str(out / f"log-{name}")
        ).run()
        seconds[name] = round(time.perf_counter() - began, 2)
    clusters = {}
    for file in (out / "remove").glob("*.clusters"):
        first = sum(rows[: int(file.name.split(".")[0])])
        for row, cluster in struct.iter_unpack("<2I", file.read_bytes()):
            clusters[first + row] = cluster
    (out / "clusters.json").write_text(json.dumps(clusters))
    print(
        json.dumps({"versions": {name: version(name) for name in ("datatrove", "spacy")}, "seconds": seconds})
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
