"""Stage `tokenizer`: documents -> tokenizer.

in:  documents
out: tokenizer.json, tokenizer_config.json, report.json (bytes per token on held-out documents)
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field
from tokenizers import Tokenizer as Reference
from tokenizers import models, pre_tokenizers

from groundup.core.atomic_io import write_json
from groundup.core.digests import UNCACHED, DigestCache
from groundup.core.errors import DataError
from groundup.core.recipe import Recipe
from groundup.core.records import Document
from groundup.core.rng import hash_fraction
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, Metrics, StageContext, stage
from groundup.text.documents import read_documents
from groundup.tokens.bpe import encoder, train
from groundup.tokens.imported import FILES
from groundup.tokens.tokenizer import SPECIALS, Tokenizer, is_own_table

SMALLEST = 256 + len(SPECIALS)
TOKENIZER = "tokenizer.json"
REFERENCE_FILES = ("gpt2_encoder.json", "gpt2_vocab.bpe")


class TokenizerRecipe(Recipe):
    """A byte-level BPE trained on the corpus, or a checkpoint's tokenizer."""

    not_identity: ClassVar[frozenset[str]] = frozenset({"reference", "start"})

    vocab_size: int = Field(
        default=4096,
        ge=SMALLEST,
        le=2**24,
        description="vocabulary size, control tokens included; not with start",
    )
    start: str = Field(
        default="", description="folder of a checkpoint whose tokenizer is copied; empty = train one"
    )
    held_out_share: float = Field(
        default=0.02, ge=0, lt=1, description="share of documents held out for the report"
    )
    reference: str = Field(
        default="", description=f"folder with GPT-2's {' and '.join(REFERENCE_FILES)}, to report beside ours"
    )

    def without_effect(self) -> dict[str, str]:
        """See `Strict`."""
        return {"vocab_size": "start has a vocabulary"} if self.start else {}


def external_digest(recipe: TokenizerRecipe, digests: DigestCache = UNCACHED) -> dict[str, str] | None:
    """Digests of the named files. Raises DataError for a missing file."""
    wanted = {"reference": REFERENCE_FILES, "start": _start_files(Path(recipe.start))}
    sha256_of = {}
    for key, names in wanted.items():
        folder = getattr(recipe, key)
        for path in (Path(folder) / name for name in names if folder):
            if not path.is_file():
                raise DataError(f"tokenizer.{key}: {path} is missing. Correct the folder, or leave it empty")
            sha256_of[path.name] = digests.sha256(path)
    return sha256_of or None


def _start_files(folder: Path) -> tuple[str, ...]:
    """The files that are read of a checkpoint: of an imported chat model those of its template too."""
    path = folder / TOKENIZER
    if not path.is_file() or is_own_table(json.loads(path.read_bytes())):
        return (TOKENIZER,)
    return (TOKENIZER, *(name for name in FILES if name != TOKENIZER and (folder / name).is_file()))


@stage(
    version=1, kind="tokenizer", external_digest=external_digest, headline=("vocab_size", "bytes_per_token")
)
def tokenizer(
    recipe: TokenizerRecipe, runtime: Runtime, context: StageContext, documents: Artifact
) -> Metrics:
    """Train on the documents and measure on held-out ones (on all, where none is held out)."""
    ours = Tokenizer.load(Path(recipe.start)) if recipe.start else _trained(recipe, context, documents)
    ours.save(context.path)
    held_out = list(_held_out(documents, recipe.held_out_share))
    texts_out = [item.text for item in held_out] or [item.text for item in read_documents(documents.path)]
    size = sum(len(text.encode("utf-8", "replace")) for text in texts_out)
    if not size:
        raise DataError("the corpus holds no text to train a tokenizer on")
    report: dict[str, Any] = {
        "held_out_documents": len(held_out),
        "held_out_bytes": size,
        "bytes_per_token": size / max(1, int(ours.encode_arrays(texts_out).counts.sum())),
        "longest_tokens": _longest(ours),
    }
    if recipe.reference:
        gpt2 = encoder(_gpt2(Path(recipe.reference)))
        report["gpt2_bytes_per_token"] = size / int(gpt2.encode(texts_out).counts.sum())
    write_json(context.file("report.json"), report)
    metrics = {key: value for key, value in report.items() if key != "longest_tokens"}
    return metrics | {
        "vocab_size": ours.vocab_size,
        "merges": max(0, ours.vocab_size - SMALLEST),
        "trainer": "taken over" if recipe.start else "tokenizers",
        "encoder": ours.encoder_name,
    }


def _trained(recipe: TokenizerRecipe, context: StageContext, documents: Artifact) -> Tokenizer:
    texts = (item.text for item in _training(documents, recipe.held_out_share))
    with context.track("train tokenizer", None, "documents") as tracker:
        table = train(_counted(texts, tracker.advance), recipe.vocab_size - len(SPECIALS))
    return Tokenizer.from_merges(table)


def _training(documents: Artifact, share: float) -> Iterator[Document]:
    """Documents that aren't held out; all of them, where that would be none."""
    empty = True
    for item in read_documents(documents.path):
        if hash_fraction(item.id) >= share:
            empty = False
            yield item
    if empty:
        yield from read_documents(documents.path)


def _held_out(documents: Artifact, share: float) -> Iterator[Document]:
    return (item for item in read_documents(documents.path) if hash_fraction(item.id) < share)


def _counted(texts: Iterable[str], advance: Any) -> Iterator[str]:
    for text in texts:
        yield text.encode("utf-8", "replace").decode("utf-8")
        advance()


def _longest(ours: Tokenizer, count: int = 40) -> list[str]:
    """The longest tokens with a letter, without runs of blanks or rulers."""
    texts = {ours.token_bytes(token).decode("utf-8", "replace") for token in range(ours.vocab_size)}
    words = [text for text in texts if any(char.isalpha() for char in text)]
    return sorted(words, key=lambda text: (-len(text), text))[:count]


def _gpt2(folder: Path) -> dict[str, Any]:
    """GPT-2's published vocabulary as a tokenizer.json table."""
    vocab = json.loads((folder / REFERENCE_FILES[0]).read_text(encoding="utf-8"))
    lines = (folder / REFERENCE_FILES[1]).read_text(encoding="utf-8").splitlines()
    pairs = [line.split() for line in lines if line and not line.startswith("#version")]
    reference = Reference(models.BPE(vocab, [(left, right) for left, right in pairs]))
    reference.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    table: dict[str, Any] = json.loads(reference.to_str())
    return table
