"""An induction circuit keeps its bits through fine-tuning, reward model and PPO, and epochs are read whole."""

from pathlib import Path

import pytest
import torch
from align_helpers import TIME, method_context

from groundup.align.align import train_with
from groundup.align.methods import Method
from groundup.align.methods.ppo import Ppo
from groundup.align.methods.reward import Reward
from groundup.align.methods.sft import Sft
from groundup.evaluate.tasks import Example
from groundup.model.checkpoint import load_decoder, load_value_model, save_model
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.model.induction import held_blocks
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.optimizers.adamw import AdamW
from groundup.train.optimizers.muon import Muon

FAST = Muon(lr=0.02, adam_lr=0.02, weight_decay=0.1)
METHODS: dict[str, Method] = {
    "sft": Sft(epochs=1, batch_rows=8, optimizer=FAST, precision="fp32"),
    "lora": Sft(epochs=1, batch_rows=8, optimizer=AdamW(lr=0.01), lora_rank=4, precision="fp32"),
    "reward": Reward(other=24, truncated=12, garbled=12, sampled=8, held_out=6, batch_rows=8, optimizer=FAST,
                     max_new_tokens=8, precision="fp32"),
    "ppo": Ppo(iterations=1, rollout_batch_size=12, minibatches=1, epochs=1, max_new_tokens=8, held_out=4,
               optimizer=AdamW(lr=1e-3), precision="fp32"),
}  # fmt: skip


@pytest.fixture(scope="module")
def circuit(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = DecoderConfig(tokenizer.vocab_size, 40, 2, 2, 2, 16, 64, max_seq_len=TIME, induction=True)
    model = Decoder(config)
    model.init_weights(0)
    folder = tmp_path_factory.mktemp("circuit")
    save_model(folder, model, tokenizer)
    return folder


def test_every_method_leaves_it_and_hands_it_on(
    examples: list[Example], tokenizer: Tokenizer, circuit: Path, tmp_path: Path
) -> None:
    initial = load_decoder(circuit)
    for name, method in METHODS.items():
        inputs = {"start": circuit} | ({"reward": tmp_path / "reward"} if name == "ppo" else {})
        train_with(method, method_context(tmp_path / name, examples, tokenizer, **inputs))
        folder = tmp_path / name
        trained = load_value_model(folder).decoder if name == "reward" else load_decoder(folder)
        assert trained.config.induction
        assert_held(initial, trained, name)


def assert_held(initial: Decoder, trained: Decoder, name: str) -> None:
    before, changed = dict(initial.named_parameters()), 0
    for parameter, after in trained.named_parameters():
        changed += not torch.equal(before[parameter], after)
        for block in held_blocks(trained.config, parameter):
            start, size = block.start, block.stop - block.start
            held, expected = (t.narrow(block.axis, start, size) for t in (after, before[parameter]))
            assert torch.equal(held, expected), f"{name}: {parameter}"
    assert changed > 8, name


def test_without_max_tokens_the_epochs_are_read_whole(
    examples: list[Example], tokenizer: Tokenizer, circuit: Path, tmp_path: Path
) -> None:
    method = Sft(epochs=3, batch_rows=8, optimizer=FAST, precision="fp32")
    session = method.prepare(method_context(tmp_path, examples, tokenizer, start=circuit))
    assert session.budget.ended_by == "epochs"  # type: ignore[attr-defined]
    assert session.budget.unread_share == 0  # type: ignore[attr-defined]
    assert session.budget.epochs >= 3  # type: ignore[attr-defined]
