"""The tokenizer stage: trained on most documents, measured on the others."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.core.errors import DataError
from groundup.core.progress import Reporter
from groundup.core.records import Document
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, StageContext
from groundup.tokens.tokenizer import Tokenizer
from groundup.tokens.train_tokenizer import TokenizerRecipe, external_digest, tokenizer


def documents() -> list[Document]:
    return [
        Document(f"id{n}", f"text number {n} of the corpus, with words " * 9, "s", f"{n}") for n in range(60)
    ]


def test_it_reports_bytes_per_token_beside_gpt2(
    work: StageContext, runtime: Runtime, publish: Callable[..., Artifact], shared_data
) -> None:
    recipe = TokenizerRecipe(vocab_size=300, held_out_share=0.2, reference=str(shared_data / "tokenizer"))
    metrics = tokenizer(recipe, runtime, work, publish(documents()))
    report = json.loads((work.path / "report.json").read_text())
    assert metrics["bytes_per_token"] == report["bytes_per_token"] > 1.5
    assert 3 < metrics["gpt2_bytes_per_token"] < 7
    assert metrics["vocab_size"] == Tokenizer.load(work.path).vocab_size == 300
    assert metrics["held_out_documents"] > 0


def test_a_small_corpus_gives_a_small_vocabulary(
    work: StageContext, runtime: Runtime, publish: Callable[..., Artifact]
) -> None:
    metrics = tokenizer(TokenizerRecipe(), runtime, work, publish([Document("a", "abc abc", "s", "a")]))
    assert metrics["vocab_size"] < 300 and metrics["held_out_documents"] == 0


def test_a_missing_reference_is_named_before_anything_runs(tmp_path) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.reference: .*gpt2_encoder\.json is missing"):
        external_digest(TokenizerRecipe(reference=str(tmp_path)))


def test_where_the_reference_lies_is_no_identity_but_its_content_is(tmp_path) -> None:
    for name in ("gpt2_encoder.json", "gpt2_vocab.bpe"):
        (tmp_path / name).write_text("x")
    first = external_digest(TokenizerRecipe(reference=str(tmp_path)))
    (tmp_path / "gpt2_vocab.bpe").write_text("y")
    assert first != external_digest(TokenizerRecipe(reference=str(tmp_path)))
    assert external_digest(TokenizerRecipe()) is None


def test_a_checkpoints_tokenizer_is_taken_as_it_is(
    tmp_path: Path, work: StageContext, runtime: Runtime, publish: Callable[..., Artifact]
) -> None:
    corpus = publish(documents())
    first = StageContext(tmp_path / "first", Reporter(quiet=True))
    tokenizer(TokenizerRecipe(vocab_size=300), runtime, first, corpus)
    recipe = TokenizerRecipe(start=str(first.path))
    metrics = tokenizer(recipe, runtime, work, corpus)
    assert (work.path / "tokenizer.json").read_bytes() == (first.path / "tokenizer.json").read_bytes()
    assert (metrics["vocab_size"], metrics["trainer"]) == (300, "taken over")
    before = external_digest(recipe)
    (first.path / "tokenizer.json").write_text("{}")
    assert external_digest(recipe) != before


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.start: .*tokenizer\.json is missing"):
        external_digest(TokenizerRecipe(start=str(tmp_path)))
