"""datatrove from WARC to deduplicated documents, as in its FineWeb example; runs in an environment of its own.

in:  CORPUS/warc/*.warc.gz; fastText models (language: the same lid.176 as ours; quality: a trained classifier)
out: OUT/..., and one line of JSON: seconds per step

    peer/bin/python benchmarks/datatrove_crawl.py CORPUS OUT LANGUAGE_MODEL QUALITY_MODEL english|whitespace
"""

import json
import sys
import time
from pathlib import Path

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FastTextClassifierFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
)
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import JsonlReader, WarcReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils import lid
from datatrove_peer import WORKERS, Whitespace


def use(language_model: str, tokenizer: str) -> None:
    """The language model that is here instead of a download; words by white space, where they are asked for."""
    lid.FT176LID.MODEL_URL = language_model
    if tokenizer == "whitespace":
        for module in list(sys.modules.values()):
            if getattr(module, "__name__", "").startswith("datatrove") and hasattr(
                module, "load_word_tokenizer"
            ):
                module.load_word_tokenizer = lambda language: Whitespace("")


use(sys.argv[3], sys.argv[5])  # not in main: every worker imports this file anew


def stages(corpus: Path, out: Path, quality_model: str, tokenizer: str, tasks: int):
    """(name, pipeline, tasks): the filters of examples/fineweb.py with their defaults, then MinHash."""
    curated = str(out / "curated")
    yield (
        "curate",
        [
            WarcReader(str(corpus / "warc"), glob_pattern="*.warc.gz", default_metadata={"dump": "bench"}),
            Trafilatura(favour_precision=True),
            LanguageFilter(),
            GopherRepetitionFilter(),
            GopherQualityFilter(),
            C4QualityFilter(filter_no_terminal_punct=False),
            FineWebQualityFilter(),
            FastTextClassifierFilter(quality_model, keep_labels=("positive", 0.0), newline_replacement=" "),
            PIIFormatter(),
            JsonlWriter(curated),
        ],
        tasks,
    )
    signatures, buckets, remove = (str(out / name) for name in ("signatures", "buckets", "remove"))
    reader = JsonlReader(curated)
    language = "eng" if tokenizer == "english" else Whitespace("")
    yield "signatures", [reader, MinhashDedupSignature(signatures, language=language)], tasks
    yield "buckets", [MinhashDedupBuckets(signatures, buckets)], 14
    yield "clusters", [MinhashDedupCluster(buckets, remove)], 1
    yield "filter", [reader, MinhashDedupFilter(remove), JsonlWriter(str(out / "kept"))], tasks


def main(corpus: Path, out: Path, quality_model: str, tokenizer: str) -> None:
    """Run the stages, then say what they took."""
    tasks = len(list((corpus / "warc").glob("*.warc.gz")))
    seconds = {}
    for name, pipeline, count in stages(corpus, out, quality_model, tokenizer, tasks):
        began = time.perf_counter()
        LocalPipelineExecutor(
            pipeline=pipeline, tasks=count, workers=WORKERS, logging_dir=str(out / f"log-{name}")
        ).run()
        seconds[name] = round(time.perf_counter() - began, 2)
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[4], sys.argv[5])
