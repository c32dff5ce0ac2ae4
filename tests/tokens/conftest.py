"""A small trained tokenizer, and artifacts of the stages before."""

from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.core.progress import Reporter
from groundup.core.records import Document
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, StageContext
from groundup.core.store import Store
from groundup.text.documents import DOCUMENTS, DocumentWriter
from groundup.tokens.bpe import train
from groundup.tokens.tokenizer import Tokenizer

TEXTS = [
    "def area(width, height):\n    return width * height  # it's simple\n" * 3,
    "The quick brown fox jumps over the lazy dog. Zürich, 漢字, 👨\u200d👩\u200d👧 and 12345 numbers.\n" * 3,
    "A model reads tokens; tokens are pieces of text, and the pieces are learnt from the text.\n" * 4,
]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_merges(train(iter(TEXTS), 400))


@pytest.fixture
def publish(tmp_path: Path) -> Callable[..., Artifact]:
    """Write documents as the artifact of a stage."""

    def make(documents: list[Document]) -> Artifact:
        store = Store(tmp_path / "workspace")
        part = tmp_path / "workspace" / "artifacts" / "x.part"
        StageContext(part, Reporter(quiet=True)).close()
        with DocumentWriter(part / DOCUMENTS / "0.parquet") as writer:
            writer.write(documents)
        artifact = store.artifact("curate", "0" * 64, "corpus")
        manifest = {
            "fingerprint": "0" * 64,
            "stage": "curate",
            "kind": "corpus",
            "metrics": {"documents_kept": len(documents)},
        }
        store.publish(part, artifact, manifest)
        return artifact

    return make


@pytest.fixture
def runtime() -> Runtime:
    return Runtime()
