"""The set-up of every method: length of its packed sequences."""

from dataclasses import replace
from pathlib import Path

import pytest
from align_helpers import TIME, method_context

from groundup.align.method import LONGEST_ROW
from groundup.align.methods import Method
from groundup.align.session import SessionSetup
from groundup.core.errors import GroundupError
from groundup.core.registry import Plugin
from groundup.evaluate.tasks import Example
from groundup.model.checkpoint import read_config, save_model
from groundup.model.decoder import Decoder
from groundup.tokens.tokenizer import Tokenizer

METHODS = sorted(Plugin("groundup.align.methods").names())


def row_length(
    start: Path, tmp_path: Path, examples: list[Example], tokenizer: Tokenizer, method: str, **keys: int
) -> int:
    recipe: Method = Plugin("groundup.align.methods").load(method)(**keys)
    context = method_context(tmp_path, examples, tokenizer, start=start)
    return SessionSetup.create(recipe, context, batch_rows=2).shape.time


@pytest.fixture
def long_context(start: Path, tmp_path: Path, tokenizer: Tokenizer) -> Path:
    """A checkpoint with the context of a published model."""
    folder = tmp_path / "long"
    folder.mkdir()
    model = Decoder(replace(read_config(start), max_seq_len=40_960))
    model.init_weights(0)
    save_model(folder, model, tokenizer)
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_the_row_length_is_the_models_context_up_to_a_cap(
    start: Path,
    long_context: Path,
    tmp_path: Path,
    examples: list[Example],
    tokenizer: Tokenizer,
    method: str,
) -> None:
    assert row_length(start, tmp_path, examples, tokenizer, method) == TIME
    assert row_length(long_context, tmp_path, examples, tokenizer, method) == LONGEST_ROW


@pytest.mark.parametrize("method", METHODS)
def test_the_row_length_is_a_key(
    start: Path,
    long_context: Path,
    tmp_path: Path,
    examples: list[Example],
    tokenizer: Tokenizer,
    method: str,
) -> None:
    assert row_length(start, tmp_path, examples, tokenizer, method, seq_len=48) == 48
    assert row_length(long_context, tmp_path, examples, tokenizer, method, seq_len=4096) == 4096
    with pytest.raises(GroundupError, match=r"seq_len = 65 is longer than the model's context of 64"):
        row_length(start, tmp_path, examples, tokenizer, method, seq_len=TIME + 1)
