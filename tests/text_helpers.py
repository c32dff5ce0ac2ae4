"""One text stage's folder and figures, for tests to look into."""

import gzip
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.core.atomic_io import sha256_file
from groundup.core.progress import Reporter
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, StageContext
from groundup.text.curate.curate import Curate, curate
from groundup.text.documents import RejectsLogEntry, read_documents, read_rejects_log
from groundup.text.ingest.ingest import Ingest, ingest
from groundup.text.ingest.sources.files import Files


@dataclass(frozen=True)
class Built:
    """What a stage left in `path`, and what it returned."""

    path: Path
    metrics: dict[str, Any]

    @property
    def artifact(self) -> Artifact:
        return Artifact(self.path, "0" * 64, "text", "raw_corpus")

    def texts(self) -> dict[str, str]:
        return {document.path: document.text for document in read_documents(self.path)}

    def ids(self) -> dict[str, str]:
        return {document.path: document.id for document in read_documents(self.path)}

    def rejects(self) -> list[RejectsLogEntry]:
        return list(read_rejects_log(self.path))

    def reasons(self) -> dict[str, str]:
        return {entry.path: entry.reason for entry in self.rejects()}

    def files(self) -> dict[str, str]:
        """The sha256 of every file that was left."""
        found = (path for path in sorted(self.path.rglob("*")) if path.is_file())
        return {str(path.relative_to(self.path)): sha256_file(path) for path in found}


def run_acquire(folder: Path, *paths: Path | str, runtime: Runtime | None = None, max_document_bytes: int = 4 << 20,
                few_files: int = 0,
                **settings: Any) -> Built:  # fmt: skip
    """Ingest files into `folder`, whose name should be `ingest-<something>` if later calls are to look there."""
    recipe = Ingest(
        sources=(Files(paths=tuple(map(str, paths)), **settings),),
        max_document_bytes=max_document_bytes,
        few_files=few_files,
    )
    work = StageContext(folder, Reporter(quiet=True))
    metrics = ingest(recipe, runtime or Runtime(), work)
    work.close()
    return Built(folder, metrics)


def run_curate(
    folder: Path, raw: Built, recipe: Curate | None = None, runtime: Runtime | None = None, **models: Artifact
) -> Built:
    """Curate what `run_acquire` left."""
    work = StageContext(folder, Reporter(quiet=True))
    metrics = curate(recipe or Curate(), runtime or Runtime(), work, raw.artifact, models)
    work.close()
    return Built(folder, metrics)


WORDS = [
    f"{a}{b}{c}"
    for a in ("ba", "ce", "di", "fo", "gu")
    for b in ("l", "m", "n", "r")
    for c in ("a", "e", "o", "ut")
]


def crowd(folder: Path, seed: int = 5) -> Path:
    """Some 40 MB in files of several kinds, a few of them damaged, with duplicates among the documents."""
    draw = random.Random(seed)
    pages = [page(draw) for _ in range(400)]
    folder.mkdir(parents=True)
    for number in range(6):
        rows = [
            json.dumps({"text": draw.choice(pages) if draw.random() < 0.3 else page(draw)})
            for _ in range(1500)
        ]
        (folder / f"rows-{number}.jsonl.gz").write_bytes(
            gzip.compress("\n".join([*rows, "{broken"]).encode(), 1)
        )
    for number in range(60):
        (folder / f"text-{number}.txt").write_text(page(draw) * 120)
    (folder / "cut.txt.gz").write_bytes(gzip.compress(pages[0].encode() * 50)[:500])
    (folder / "binary.bin").write_bytes(bytes(range(256)) * 100)
    return folder


def page(draw: random.Random) -> str:
    lines = [" ".join(draw.choices(WORDS, k=12)).capitalize() + "." for _ in range(40)]
    return "\n".join(lines) + "\n\n"
