"""A published vocabulary with our control tokens on top: same ids, same logits, a tokenizer that our stages take."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from decoders import GPT2, QWEN3, decoder
from tokenizers import Tokenizer as Reference
from tokenizers import decoders, models, pre_tokenizers, trainers

from groundup.core.errors import DataError
from groundup.export.hf_import import import_huggingface
from groundup.export.vocabulary import tokenizer_from_hf
from groundup.model.checkpoint import load_decoder, save_model
from groundup.tokens.bpe import byte_table
from groundup.tokens.tokenizer import SPECIALS, Tokenizer

TEXT = "the cat sat on the mat – naïve\n\t12345 🦊"


def published_tokenizer(path: Path) -> Reference:
    """As GPT-2's, with a control token behind the vocabulary."""
    theirs = Reference(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    theirs.train_from_iterator(
        [TEXT, "the mat and the cat"] * 9, trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet)
    )
    theirs.add_special_tokens(["<|endoftext|>"])
    theirs.save(str(path))
    return theirs


@pytest.mark.parametrize("tied", [True, False])
def test_a_published_model_gets_our_control_tokens_and_keeps_its_ids_and_logits(
    tied: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "published"
    folder.mkdir()
    theirs = published_tokenizer(folder / "tokenizer.json")
    count, mark = theirs.get_vocab_size(False), theirs.token_to_id("<|endoftext|>")
    model = decoder(replace(GPT2 if tied else QWEN3, vocab_size=count + 40))
    save_model(folder, model)
    config_json = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config_json | {"eos_token_id": mark}))
    import_huggingface(folder, tmp_path / "ours", control_tokens=True)

    ours, back = Tokenizer.load(tmp_path / "ours"), load_decoder(tmp_path / "ours")
    ids = ours.encode(TEXT)
    assert ids == theirs.encode(TEXT).ids
    assert ours.decode(ids) == TEXT
    assert back.config.vocab_size == ours.vocab_size == count + len(SPECIALS)
    batch = torch.tensor([ids])
    with torch.no_grad():
        torch.testing.assert_close(back(batch)[..., :count], model(batch)[..., :count], atol=1e-5, rtol=1e-5)
        began, usual = back(torch.tensor([[ours.bos, *ids]])), model(torch.tensor([[mark, *ids]]))
        torch.testing.assert_close(began[..., :count], usual[..., :count], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(began[..., ours.eos], usual[..., mark], atol=1e-5, rtol=1e-5)
    rows = model.model.embed_tokens.weight[:count]
    torch.testing.assert_close(back.model.embed_tokens.weight[ours.user], rows.mean(dim=0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "Unigram"}, "is not a byte-level BPE"),
        ({"vocab": {"a": 0}}, "is not a byte-level BPE"),
        ({"more": {"▁the": 280}}, "'▁the', which encodes no bytes"),
        ({"more": {"thethe": 999}}, "gaps between its ids"),
    ],
)
def test_a_vocabulary_of_another_kind_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer.json"
    published_tokenizer(path)
    table = json.loads(path.read_text())
    table["model"]["vocab"] |= change.pop("more", {})
    table["model"] |= change
    path.write_text(json.dumps(table))
    with pytest.raises(DataError, match=message):
        tokenizer_from_hf(path)


RARE = [chr(256 + number) for number in range(12)]
"""The characters of bytes 0 to 11, but for a newline."""


def chat_tokenizer(path: Path) -> Reference:
    """Like SmolLM2's: control tokens first in the vocabulary, and no tokens for rare bytes."""
    theirs = Reference(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = decoders.ByteLevel()
    alphabet = [char for char in pre_tokenizers.ByteLevel.alphabet() if char not in RARE or char == RARE[10]]
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        initial_alphabet=alphabet,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    )
    theirs.train_from_iterator([TEXT, "the mat and the cat"] * 9, trainer)
    theirs.save(str(path))
    return theirs


def test_a_vocabulary_without_rare_bytes_gets_them_and_keeps_its_ids_and_logits(tmp_path: Path) -> None:
    folder = tmp_path / "published"
    folder.mkdir()
    theirs = chat_tokenizer(folder / "tokenizer.json")
    count = theirs.get_vocab_size()
    model = decoder(replace(QWEN3, vocab_size=count))
    save_model(folder, model)
    config_json = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config_json | {"eos_token_id": 2}))
    import_huggingface(folder, tmp_path / "ours", control_tokens=True)
    ours, back = Tokenizer.load(tmp_path / "ours"), load_decoder(tmp_path / "ours")
    missing = [char for char in byte_table() if char not in theirs.get_vocab()]
    assert len(missing) == 10 and ours.vocab_size == count + len(missing) + len(SPECIALS)
    assert ours.encode(TEXT) == theirs.encode(TEXT).ids
    rare = "a\x00b\x07\x0b" + TEXT
    assert ours.decode(ours.encode(rare)) == rare
    batch = torch.tensor([ours.encode(TEXT)])
    with torch.no_grad():
        torch.testing.assert_close(back(batch)[..., :count], model(batch)[..., :count], atol=1e-5, rtol=1e-5)
    rows = model.model.embed_tokens.weight
    torch.testing.assert_close(back.model.embed_tokens.weight[count], rows.mean(dim=0))
    torch.testing.assert_close(back.model.embed_tokens.weight[ours.eos], rows[2])
