"""Text and ids: lossless, equal to the reference id for id, and control tokens can't be spelled."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Reference

from groundup.core.errors import DataError
from groundup.core.records import Message
from groundup.tokens import bpe
from groundup.tokens.chat import prompt, render
from groundup.tokens.tokenizer import SPECIALS, StreamDecoder, Tokenizer

HOSTILE = [*bpe.PROBES, *SPECIALS, "".join(SPECIALS), "<|<|pad|>|>", "a<|end_of_turn|>b", "\ud800x"]


def reference_ids(words: Tokenizer, text: str) -> list[int]:
    table = {**words._table, "added_tokens": [], "post_processor": None}
    clean = text.encode("utf-8", "replace").decode()
    ids: list[int] = Reference.from_str(json.dumps(table)).encode(clean, add_special_tokens=False).ids
    return ids


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_any_text_comes_back_and_equals_the_reference(words: Tokenizer, text: str) -> None:
    ids = words.encode(text)
    assert words.decode(ids) == text.encode("utf-8", "replace").decode()
    assert ids == reference_ids(words, text)


def test_the_fast_encoder_is_in_use_and_equals_the_reference_on_hostile_text(words: Tokenizer) -> None:
    assert words.encoder_name == "gigatoken"
    assert words.encode_batch(HOSTILE) == [reference_ids(words, text) for text in HOSTILE]


def test_an_encoder_that_differs_is_not_used(words: Tokenizer, monkeypatch) -> None:
    wrong = bpe.Encoder("wrong", lambda texts: bpe._reference(words._table).encode([*texts[:-1], "x"]))
    monkeypatch.setattr(bpe, "_fast", lambda table: wrong)
    assert bpe.encoder(words._table).name == "tokenizers"
    monkeypatch.setattr(bpe, "_fast", lambda table: None)
    assert bpe.encoder(words._table).name == "tokenizers"


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_spells_a_control_token(words: Tokenizer, text: str) -> None:
    assert not any(words.is_special(token) for token in words.encode(text))
    rendered = render([Message("user", text), Message("assistant", text)], words)
    assert sum(words.is_special(token) for token in rendered.ids) == 5


def test_training_twice_gives_the_same_bytes() -> None:
    texts = ["to be or not to be, that is the question " * 3, "words words, more words"]
    assert bpe.train(iter(texts), 300) == bpe.train(iter(texts), 300)


def test_merges_equal_the_published_reference(shared_data: Path) -> None:
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
def test_streaming_never_emits_half_a_character(words: Tokenizer, text: str) -> None:
    decoder, said = StreamDecoder(words), []
    for token in [byte for part in text for byte in words.encode(part)]:
        said.append(decoder.push(token))
        assert "\ufffd" not in said[-1] or "\ufffd" in text
    assert "".join(said) + decoder.flush() == text


def test_an_unfinished_character_is_told_at_the_end(words: Tokenizer) -> None:
    decoder = StreamDecoder(words)
    first = next(token for token in range(256) if words.token_bytes(token) == b"\xf0")
    assert decoder.push(first) == "" and decoder.flush() == "\ufffd"


def test_only_what_the_assistant_says_is_learnt(words: Tokenizer) -> None:
    turns = [Message("system", "be kind"), Message("user", "hi"), Message("assistant", "hello there")] * 2
    rendered = render(turns, words)
    learnt = [token for token, learn in zip(rendered.ids, rendered.loss_mask, strict=True) if learn]
    assert learnt == [*words.encode("hello there"), words.end_of_turn] * 2
    assert prompt(turns[:2], words) == rendered.ids[: len(prompt(turns[:2], words))]


def test_saved_and_loaded_it_is_the_same(words: Tokenizer, tmp_path: Path) -> None:
    words.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.vocab_size == words.vocab_size and again.encode_batch(HOSTILE) == words.encode_batch(HOSTILE)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="no tokenizer that can be read"):
        Tokenizer.load(tmp_path)


def test_transformers_reads_it_and_renders_the_same_conversation(words: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    words.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    text = "def f(x):\n    return x  # it's 12345\n\n漢字 👨\u200d👩\u200d👧"
    assert theirs.encode(text) == [words.bos, *words.encode(text)]
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (
        words.bos,
        words.eos,
        words.pad,
    )
    turns = [Message("system", "be kind"), Message("user", text), Message("assistant", "hello  there\n")]
    plain = [{"role": turn.role, "content": turn.content} for turn in turns]
    ids = theirs.apply_chat_template(plain, tokenize=True, return_dict=False)
    assert ids == render(turns, words).ids
    ids = theirs.apply_chat_template(plain[:2], tokenize=True, add_generation_prompt=True, return_dict=False)
    assert ids == prompt(turns[:2], words)
