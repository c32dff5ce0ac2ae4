"""Two made-up vocabularies, files of sentences in them, and a classifier trained on those."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa

from groundup.core.progress import Reporter
from groundup.core.runtime import Runtime
from groundup.core.stage import StageContext
from groundup.text.batch import DocumentBatch
from groundup.text.curate.classifier import Classifier, classifier
from groundup.text.documents import DOCUMENT_SCHEMA

SEA = [
    "harbour",
    "gull",
    "tide",
    "anchor",
    "sail",
    "storm",
    "reef",
    "lantern",
    "rope",
    "mast",
    "wave",
    "shore",
]
LAND = [
    "meadow",
    "plough",
    "barn",
    "hedge",
    "orchard",
    "furrow",
    "ox",
    "mill",
    "wheat",
    "gate",
    "lane",
    "fence",
]
SMALL: dict[str, Any] = {"bucket": 1000, "dim": 4, "held_out": 0.3}


def sentences(words: list[str], number: int, seed: int) -> list[str]:
    choose = random.Random(seed)
    return [" ".join(choose.choices(words, k=12)) + "." for _ in range(number)]


def write(path: Path, texts: list[str], **more: object) -> str:
    path.write_text("".join(json.dumps({"text": text, **more}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


def sea_and_land(folder: Path) -> dict[str, tuple[str, ...]]:
    return {"positive": (write(folder / "sea.jsonl", sentences(SEA, 60, 1)),),
            "negative": (write(folder / "land.jsonl", sentences(LAND, 50, 2)),)}  # fmt: skip


def train(folder: Path, **settings: Any) -> tuple[Path, dict[str, Any]]:
    """The artifact and its metrics."""
    work = StageContext(folder, Reporter(quiet=True))
    metrics = classifier(Classifier(**SMALL | settings), Runtime(), work)
    work.close()
    return folder, metrics


def batch(*texts: str, path: str = "a.txt") -> DocumentBatch:
    blank = dict.fromkeys(DOCUMENT_SCHEMA.names, "")
    rows = [blank | {"text": text, "path": path} for text in texts]
    return DocumentBatch(pa.Table.from_pylist(rows, DOCUMENT_SCHEMA))
