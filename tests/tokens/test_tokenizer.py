"""Text and ids: lossless, equal to the reference id for id, and control tokens can't be spelled."""

import inspect
import json
import textwrap
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Reference

from groundup.core.errors import DataError
from groundup.core.records import Message
from groundup.tokens import bpe
from groundup.tokens.chat import prompt, render
from groundup.tokens.tokenizer import SPECIALS, StreamDecoder, Tokenizer

TEXTS = [
    "def area(width, height):\n    return width * height  # it's simple\n" * 3,
    "The quick brown fox jumps over the lazy dog. Zürich, 漢字, 👨\u200d👩\u200d👧 and 12345 numbers.\n" * 3,
    "A model reads tokens; tokens are pieces of text, and the pieces are learnt from the text.\n" * 4,
]
HOSTILE = [*bpe.PROBES, *SPECIALS, "".join(SPECIALS), "<|<|pad|>|>", "a<|end_of_turn|>b", "\ud800x"]


def reference_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    table = {**tokenizer._table, "added_tokens": [], "post_processor": None}
    clean = text.encode("utf-8", "replace").decode()
    ids: list[int] = Reference.from_str(json.dumps(table)).encode(clean, add_special_tokens=False).ids
    return ids


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_any_text_comes_back_and_equals_the_reference(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text.encode("utf-8", "replace").decode()
    assert ids == reference_ids(tokenizer, text)


def test_the_fast_encoder_is_in_use_and_equals_the_reference_on_hostile_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.encoder_name == "gigatoken"
    assert tokenizer.encode_batch(HOSTILE) == [reference_ids(tokenizer, text) for text in HOSTILE]


def test_an_encoder_that_differs_is_not_used(tokenizer: Tokenizer, monkeypatch) -> None:
    wrong = bpe.Encoder("wrong", lambda texts: bpe._reference(tokenizer._table).encode([*texts[:-1], "x"]))
    monkeypatch.setattr(bpe, "_fast", lambda table: wrong)
    assert bpe.encoder(tokenizer._table).name == "tokenizers"
    monkeypatch.setattr(bpe, "_fast", lambda table: None)
    assert bpe.encoder(tokenizer._table).name == "tokenizers"


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_spells_a_control_token(tokenizer: Tokenizer, text: str) -> None:
    assert not any(tokenizer.is_special(token) for token in tokenizer.encode(text))
    rendered = render([Message("user", text), Message("assistant", text)], tokenizer)
    assert sum(tokenizer.is_special(token) for token in rendered.ids) == 5


def test_training_twice_gives_the_same_bytes() -> None:
    texts = ["to be or not to be, that is the question " * 3, "words words, more words"]
    assert bpe.train(iter(texts), 300) == bpe.train(iter(texts), 300)


def chosen_merges(
    table: dict[str, Any], texts: Sequence[str]
) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """(merge, oracle's choice) of every step: all pairs of all words are counted anew before each merge.

    The oracle takes the pair of the greatest count; of equal counts the one with the smallest ids.
    """
    split = Reference.from_str(json.dumps(table)).pre_tokenizer.pre_tokenize_str
    counts = Counter(word for text in texts for word, _ in split(text))
    words = {word: list(word) for word in counts}
    vocab: dict[str, int] = table["model"]["vocab"]
    steps = []
    for left, right in table["model"]["merges"]:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in words.items():
            for pair in pairwise(parts):
                pairs[pair] += counts[word]
        oracle = min(pairs, key=lambda pair: (-pairs[pair], vocab[pair[0]], vocab[pair[1]]))
        steps.append(((left, right), oracle))
        words = {word: merged(parts, left, right) for word, parts in words.items()}
    return steps


def merged(parts: list[str], left: str, right: str) -> list[str]:
    result: list[str] = []
    for part in parts:
        # a merged part can't be the left half of the same merge again, since it is longer
        if result and part == right and result[-1] == left:
            result[-1] = left + right
        else:
            result.append(part)
    return result


@pytest.mark.parametrize(
    ("texts", "vocab_size"),
    [
        (TEXTS, 400),
        (["aaaa aaa aaaaaaaa    \n" * 5 + " " * 70], 300),  # overlapping pairs
        (["ab cd ef gh ij kl mn op qr st uv wx yz"], 280),  # ties only
        ([inspect.getsource(textwrap)], 600),
    ],
    ids=["mixed", "overlaps", "ties", "code"],
)
def test_every_merge_is_the_pair_with_the_greatest_count(texts: list[str], vocab_size: int) -> None:
    table = bpe.train(iter(texts), vocab_size)
    steps = chosen_merges(table, texts)
    assert len(steps) > 10 and all(merge == oracle for merge, oracle in steps)
    swapped = [steps[1][0], steps[0][0], *(merge for merge, _ in steps[2:])]
    wrong = {**table, "model": {**table["model"], "merges": swapped}}
    assert any(merge != oracle for merge, oracle in chosen_merges(wrong, texts)), "the oracle notices a swap"


def test_merges_nearly_equal_the_published_reference(shared_data: Path) -> None:
    folder = shared_data / "tokenizer" / "cs336"
    if not folder.is_dir():
        pytest.skip("needs the reference merges")
    text = (folder / "corpus.en").read_text(encoding="utf-8")
    table = bpe.train(iter([text]), 500)
    spelled = bpe.byte_table()
    ours = {bytes(spelled[c] for c in left + right) for left, right in table["model"]["merges"]}
    lines = (folder / "train-bpe-reference-merges.txt").read_text(encoding="utf-8").splitlines()
    published = [line.rsplit(" ", 1) for line in lines]
    theirs = {bytes(spelled[c] for c in left + right) for left, right in published}
    # Theirs splits by GPT-2's expression, ours by Llama 3's: the merges are nearly the same, not all.
    assert len(ours & theirs) > 0.9 * len(theirs)


@pytest.mark.parametrize("text", ["a 👨‍👩‍👧 b", "e\u0301漢字", "ends in half: \ufffd"])
def test_streaming_never_emits_half_a_character(tokenizer: Tokenizer, text: str) -> None:
    decoder, said = StreamDecoder(tokenizer), []
    for token in [byte for part in text for byte in tokenizer.encode(part)]:
        said.append(decoder.push(token))
        assert "\ufffd" not in said[-1] or "\ufffd" in text
    assert "".join(said) + decoder.flush() == text


def test_an_unfinished_character_is_told_at_the_end(tokenizer: Tokenizer) -> None:
    decoder = StreamDecoder(tokenizer)
    first = next(token for token in range(256) if tokenizer.token_bytes(token) == b"\xf0")
    assert decoder.push(first) == "" and decoder.flush() == "\ufffd"


def test_only_what_the_assistant_says_is_learnt(tokenizer: Tokenizer) -> None:
    turns = [Message("system", "be kind"), Message("user", "hi"), Message("assistant", "hello there")] * 2
    rendered = render(turns, tokenizer)
    learnt = [token for token, learn in zip(rendered.ids, rendered.loss_mask, strict=True) if learn]
    assert learnt == [*tokenizer.encode("hello there"), tokenizer.end_of_turn] * 2
    assert prompt(turns[:2], tokenizer) == rendered.ids[: len(prompt(turns[:2], tokenizer))]


def test_saved_and_loaded_it_is_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.vocab_size == tokenizer.vocab_size and again.encode_batch(HOSTILE) == tokenizer.encode_batch(
        HOSTILE
    )
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="no tokenizer that can be read"):
        Tokenizer.load(tmp_path)


def test_transformers_reads_it_and_begins_a_text_with_bos(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    text = "def f(x):\n    return x  # it's 12345\n\n漢字 👨\u200d👩\u200d👧"
    assert theirs.encode(text) == [tokenizer.bos, *tokenizer.encode(text)]
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (
        tokenizer.bos,
        tokenizer.eos,
        tokenizer.pad,
    )
    assert theirs.chat_template is None
