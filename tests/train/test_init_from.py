"""Pretraining that starts from a checkpoint: what it takes over, what it refuses, what its digest notices."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from groundup.core.builder import Builder
from groundup.core.errors import DataError
from groundup.core.metrics import read_metrics
from groundup.core.progress import Reporter
from groundup.core.store import Store
from groundup.model.architectures.qwen3_moe import Qwen3MoE
from groundup.model.checkpoint import load_decoder, save_model
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.tokens.bpe import train
from groundup.tokens.tokenizer import Tokenizer
from groundup.train import pretrain as stage
from groundup.train import utilization
from groundup.train.init_from import start_config, start_digest, start_weights
from groundup.train.optimizers.adamw import AdamW
from groundup.train.optimizers.muon import Muon
from training_helpers import SITE, inputs, one_thread, recipe

__all__ = ["one_thread"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_merges(train(iter(["the cat sat on the mat and the hat"] * 9), 270))


def checkpoint(folder: Path, vocab_size: int, tokenizer: Tokenizer | None, learned: bool = False) -> Decoder:
    config = DecoderConfig(
        vocab_size=vocab_size,
        d_model=16,
        n_layers=1,
        n_heads=2,
        n_kv_heads=1,
        head_dim=8,
        d_ff=24,
        max_seq_len=32,
    )
    gpt2 = {"architecture": "gpt2", "positions": "learned", "norm": "layer", "qk_norm": "none",
            "activation": "gelu", "biases": True, "n_kv_heads": 2}  # fmt: skip
    model = Decoder(replace(config, **gpt2) if learned else config)
    model.init_weights(3)
    save_model(folder, model, tokenizer)
    return model


def weights_of(folder: Path, rows: Path) -> dict[str, torch.Tensor]:
    return start_weights(folder, start_config(folder, 16), rows)


def test_weights_and_architecture_come_from_the_checkpoint(tokenizer: Tokenizer, tmp_path: Path) -> None:
    ours = checkpoint(tmp_path / "start", tokenizer.vocab_size, tokenizer)
    tokenizer.save(tmp_path / "rows")
    for seq_len, room in ((16, 32), (64, 64)):
        config = start_config(tmp_path / "start", seq_len)
        assert config == replace(ours.config, max_seq_len=room)
        weights = start_weights(tmp_path / "start", config, tmp_path / "rows")
        assert weights.keys() == ours.state_dict().keys()
        assert all(torch.equal(weights[name], value) for name, value in ours.state_dict().items())


def test_another_vocabulary_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "rows")
    checkpoint(tmp_path / "larger", 999, None)
    with pytest.raises(DataError, match=f"a vocabulary of 999 ids.*one of {tokenizer.vocab_size}"):
        weights_of(tmp_path / "larger", tmp_path / "rows")
    other = Tokenizer.from_merges(train(iter(["a dog dug a dam in the mud"] * 9), 270))
    assert other.vocab_size == tokenizer.vocab_size
    checkpoint(tmp_path / "other", other.vocab_size, other)
    with pytest.raises(DataError, match="another tokenizer than that of the rows"):
        weights_of(tmp_path / "other", tmp_path / "rows")


def test_more_positions_than_were_learned_are_refused(tmp_path: Path) -> None:
    checkpoint(tmp_path, 300, None, learned=True)
    assert start_config(tmp_path, 32).max_seq_len == 32
    with pytest.raises(
        DataError, match=r"has learned 32 positions, and rows have 64\. Set tokenize\.seq_len = 32"
    ):
        start_config(tmp_path, 64)


def test_the_digest_changes_with_weights_config_and_tokenizer_but_not_with_the_place(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"pretrain\.start: .* has no config\.json"):
        start_digest(tmp_path)
    checkpoint(tmp_path / "one", tokenizer.vocab_size, tokenizer)
    first = start_digest(tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "two")
    assert start_digest(tmp_path / "two") == first
    assert set(first) == {"config.json", "model.safetensors", "tokenizer.json"}
    for name in first:
        path = tmp_path / "two" / name
        whole = path.read_bytes()
        path.write_bytes(whole + b" ")
        assert start_digest(tmp_path / "two") != first
        path.write_bytes(whole)


def test_weights_that_do_not_fit_are_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    checkpoint(tmp_path / "start", tokenizer.vocab_size, tokenizer)
    tokenizer.save(tmp_path / "rows")
    config = json.loads((tmp_path / "start" / "config.json").read_text())
    (tmp_path / "start" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(DataError, match=r"missing: model\.layers\.1"):
        weights_of(tmp_path / "start", tmp_path / "rows")


def test_a_run_goes_on_from_anothers_checkpoint_wherever_it_lies(
    tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = inputs(tmp_path / "inputs")
    monkeypatch.setattr(utilization, "matmul_rate", lambda *_, **__: 1e12)
    builder = Builder(Store(tmp_path / "workspace"), SITE, Reporter(quiet=True))
    first = builder(stage.pretrain, recipe(6), given.tokens, given.tokenizer)
    start = str(first.path)
    further = recipe(6).model_copy(update={"start": start, "depth": 7, "warmup_fraction": 0.0})
    second = builder(stage.pretrain, further, given.tokens, given.tokenizer)
    assert load_decoder(second.path).config == load_decoder(first.path).config
    began = [line["loss"] for line in read_metrics(first.path / "metrics.jsonl") if "loss" in line]
    went_on = [line["loss"] for line in read_metrics(second.path / "metrics.jsonl") if "loss" in line]
    assert went_on[0] < began[0] - 0.1
    shutil.copytree(first.path, tmp_path / "copy")
    moved = further.model_copy(update={"start": str(tmp_path / "copy")})
    builder(stage.pretrain, moved, given.tokens, given.tokenizer)
    assert [report.state for report in builder.reports] == ["built", "built", "up to date"]


def test_experts_are_trained_balanced_and_their_load_is_logged(
    tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = inputs(tmp_path / "inputs")
    monkeypatch.setattr(utilization, "matmul_rate", lambda *_, **__: 1e12)
    for balance in ("loss", "bias"):
        builder = Builder(Store(tmp_path / balance), SITE, Reporter(quiet=True))
        part = Qwen3MoE(d_model=16, n_heads=2, n_experts=4, balance=balance, balance_rate=0.01)
        plan = recipe(7).model_copy(update={"architecture": part})
        made = builder(stage.pretrain, plan, given.tokens, given.tokenizer)
        lines = [line for line in read_metrics(made.path / "metrics.jsonl") if "loss" in line]
        assert all(1 <= line["expert_load"] <= 4 for line in lines)
        assert all(("balance_loss" in line) == (balance == "loss") for line in lines)
        gate = load_decoder(made.path).model.layers[0].mlp.gate
        assert (gate.bias is not None) == (balance == "bias")
        if gate.bias is not None:  # seven steps of 0.01 up or down
            assert set((gate.bias * 100).round().int().abs().tolist()) <= {0, 1, 2, 3, 4, 5, 6, 7}
            assert gate.bias.abs().sum() > 0


def test_a_stable_phase_annealed_later_ends_as_one_run_would_have(
    tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = inputs(tmp_path / "inputs")
    monkeypatch.setattr(utilization, "matmul_rate", lambda *_, **__: 1e12)
    builder = Builder(Store(tmp_path / "workspace"), SITE, Reporter(quiet=True))
    by_rule = {"optimizer": Muon()}  # rates of the first run's rules, not of the second's
    whole = recipe(20).model_copy(
        update={"schedule": "wsd", "decay_fraction": 0.4, "warmup_fraction": 0.1} | by_rule
    )
    at_once = builder(stage.pretrain, whole, given.tokens, given.tokenizer)
    rest = recipe(8).model_copy(
        update={"start": str(at_once.path / "stable"), "schedule": "linear", "warmup_fraction": 0.0} | by_rule
    )
    later = builder(stage.pretrain, rest, given.tokens, given.tokenizer)
    one, two = (load_decoder(made.path).state_dict() for made in (at_once, later))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_another_optimizer_starts_anew_and_says_so(
    tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = inputs(tmp_path / "inputs")
    monkeypatch.setattr(utilization, "matmul_rate", lambda *_, **__: 1e12)
    builder = Builder(Store(tmp_path / "workspace"), SITE)
    first = builder(
        stage.pretrain, recipe(6).model_copy(update={"schedule": "wsd"}), given.tokens, given.tokenizer
    )
    other = recipe(6).model_copy(update={"start": str(first.path / "stable"), "optimizer": AdamW()})
    builder(stage.pretrain, other, given.tokens, given.tokenizer)
    assert "was written by muon: adamw starts without state" in " ".join(capsys.readouterr().err.split())
