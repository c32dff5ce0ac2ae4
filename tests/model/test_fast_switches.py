"""Every switch that published formats don't carry: training, cache, losses, disk, and the refusal to export."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from decoders import FAST, QWEN3, decoder

from groundup.core.errors import GroundupError
from groundup.export.huggingface import export_huggingface
from groundup.infer.kv_cache import StaticKVCache
from groundup.model.checkpoint import load_decoder, save_model
from groundup.model.decoder import Decoder
from groundup.model.losses import cross_entropy, token_log_probs
from groundup.train.optimizers.muon import Muon

IDS = torch.randint(0, 96, (2, 17), generator=torch.Generator().manual_seed(1))
every_switch = pytest.mark.parametrize("switch", FAST)


def loss_of(model: Decoder) -> torch.Tensor:
    hidden, targets = model.hidden(IDS[:, :-1]).flatten(0, 1), IDS[:, 1:].flatten()
    weights = torch.full((len(targets),), 1 / len(targets))
    return cross_entropy(hidden, model.head_weight, targets, weights, cap=model.config.logit_softcap)[0]


@every_switch
def test_it_changes_the_logits_and_learns(switch: str) -> None:
    model, plain = decoder(FAST[switch]), decoder(QWEN3)
    with torch.no_grad():
        assert not torch.allclose(model(IDS), plain(IDS), atol=1e-3)
    optimizer = Muon(lr=0.01, adam_lr=0.01).build(model.named_parameters())
    losses = []
    for _ in range(4):
        loss = loss_of(model)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5


@every_switch
def test_its_cache_gives_the_logits_of_the_full_pass(switch: str) -> None:
    model = decoder(FAST[switch])
    cache, found = StaticKVCache(torch.tensor([9, 9]), capacity=17, device=torch.device("cpu")), []
    with torch.no_grad():
        for start, end in ((0, 9), *((at, at + 1) for at in range(9, 17))):
            cache.reserve(end - start)
            found.append(model(IDS[:, start:end], cache=cache, positions=torch.arange(start, end)[None]))
        torch.testing.assert_close(torch.cat(found, dim=1), model(IDS), atol=1e-4, rtol=1e-4)


@every_switch
def test_its_losses_are_those_of_its_logits(switch: str) -> None:
    model = decoder(FAST[switch])
    picked = model(IDS[:, :-1]).double().log_softmax(dim=-1).gather(2, IDS[:, 1:, None])[..., 0]
    torch.testing.assert_close(loss_of(model).double(), -picked.mean(), atol=1e-5, rtol=1e-5)
    cap = model.config.logit_softcap
    log_probs = token_log_probs(model.hidden(IDS[:, :-1]), model.head_weight, IDS[:, 1:], cap=cap)
    torch.testing.assert_close(log_probs.double(), picked, atol=1e-4, rtol=1e-4)


@every_switch
def test_it_survives_the_disk(switch: str, tmp_path: Path) -> None:
    model = decoder(FAST[switch])
    save_model(tmp_path, model)
    again = load_decoder(tmp_path)
    assert again.config == model.config
    with torch.no_grad():
        assert torch.equal(again(IDS), model(IDS))


@every_switch
def test_it_is_named_by_whoever_would_export_it(switch: str, tmp_path: Path) -> None:
    save_model(tmp_path / "ours", decoder(FAST[switch]))
    with pytest.raises(GroundupError, match=rf"cannot be exported: it was trained with {switch}, which"):
        export_huggingface(tmp_path / "ours", tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()


def test_what_writes_into_the_stream_can_start_at_zero() -> None:
    model = Decoder(replace(QWEN3, zero_init=True))
    model.init_weights(0)
    embedded = torch.nn.functional.embedding(IDS, model.model.embed_tokens.weight)
    with torch.no_grad():
        torch.testing.assert_close(model.hidden(IDS), model.model.norm(embedded))
