"""An imported instruct model is fine-tuned with its own template and control tokens, and stays a model of its kind."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from align_helpers import method_context

from groundup.align.methods.sft import Sft
from groundup.core.records import Message
from groundup.core.runtime import Runtime
from groundup.evaluate.tasks import Example
from groundup.export.hf_import import import_huggingface
from groundup.infer.engine import Engine
from groundup.model.checkpoint import load_decoder, read_config, save_model
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.serve.conversation import ChatOptions, open_chat
from groundup.tokens.chat import prompt
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.loop import train
from groundup.train.optimizers.adamw import AdamW

sys.path.insert(0, str(Path(__file__).parents[1] / "tokens"))
from test_imported import published

ROWS = 400
"""Embeddings of the model, more than its tokenizer has ids."""


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    """A published chat model with a context of 4096, after `groundup import` without --control-tokens."""
    folder = published(tmp_path / "published", "qwen")
    model = Decoder(DecoderConfig(ROWS, 32, 2, 2, 2, 16, 64, max_seq_len=4096))
    model.init_weights(0)
    save_model(folder, model)
    config = json.loads((folder / "config.json").read_text())
    eos = Tokenizer.load(folder).eos
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": eos}))
    import_huggingface(folder, tmp_path / "imported")
    return tmp_path / "imported"


def test_it_learns_answers_and_ends_them_in_its_own_format(
    imported: Path, examples: list[Example], tmp_path: Path
) -> None:
    tokenizer = Tokenizer.load(imported)
    assert tokenizer.vocab_size < read_config(imported).vocab_size
    easy = [replace(example, question=f"do {example.subject}", answer="the cat") for example in examples]
    method = Sft(optimizer=AdamW(lr=1e-2), seq_len=64, batch_rows=4, epochs=100, max_tokens=40_000)
    context = method_context(tmp_path / "sft", easy, tokenizer, start=imported)
    session = method.prepare(context)
    assert session.train_spec().tokens_per_step == 4 * 64
    train(session.train_spec())
    metrics = session.finish()
    assert metrics["val_loss"] < 0.2 < metrics["val_loss_before"]

    chat, _ = open_chat(context.stage.path, ChatOptions(max_tokens=16), Runtime(device="cpu", threads=1))
    text = "".join(chat.ask("do open_ball"))
    assert chat.answer is not None
    assert (text.split("</think>\n\n")[-1], chat.answer.finish_reason) == ("the cat", "stop")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (context.stage.path / name).read_bytes() == (imported / name).read_bytes()

    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(context.stage.path)
    ids = prompt([Message("user", "do open_ball")], tokenizer)
    made = theirs.generate(torch.tensor([ids]), max_new_tokens=16, do_sample=False)[0, len(ids) :].tolist()
    model = load_decoder(context.stage.path)
    (ours,) = Engine(model, set(tokenizer.stop_ids), tokenizer.pad, 4096).generate([ids], 16, temperature=0)
    assert ours.ids == made and made[-1] == tokenizer.eos
