"""Held weights: the induction circuit has the same bits after any training, and everything else learns."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from groundup.model.architectures.qwen3 import Qwen3
from groundup.model.decoder import Decoder
from groundup.model.induction import held_blocks
from groundup.model.lora import Lora, attach, merge
from groundup.model.value_head import ValueModel
from groundup.parallel.held_weights import HeldWeights
from groundup.train.optimizers import Optimizer
from groundup.train.optimizers.adamw import AdamW
from groundup.train.optimizers.muon import Muon

OPTIMIZERS: dict[str, Optimizer] = {
    "adamw": AdamW(lr=0.01, weight_decay=0.5),
    "muon": Muon(lr=0.02, adam_lr=0.01, weight_decay=0.5),
}
IDS = torch.randint(0, 60, (4, 24), generator=torch.Generator().manual_seed(0))


def decoder(tied: bool = True) -> Decoder:
    shape = Qwen3(d_model=64, n_heads=4, n_kv_heads=2, tie_embeddings=tied, value_embeddings=True)
    model = Decoder(replace(shape.config(3, 64, 32), induction=True))
    model.init_weights(0)
    return model


def held_and_free(model: Decoder) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Copies of the held blocks and of the rest, by parameter."""
    held, free = {}, {}
    for name, parameter in model.named_parameters():
        mask = torch.zeros_like(parameter, dtype=torch.bool)
        for block in held_blocks(model.config, name):
            mask.narrow(block.axis, block.start, block.stop - block.start).fill_(True)
        held[name], free[name] = parameter.data[mask].clone(), parameter.data[~mask].clone()
    return held, free


def train(model: nn.Module, loss: Callable[[], torch.Tensor], optimizer: Optimizer, steps: int = 4) -> None:
    weights, built = HeldWeights.of(model), optimizer.build(model.named_parameters())
    for _ in range(steps):
        loss().backward()  # type: ignore[no-untyped-call]
        weights.zero_gradients()
        weights.step(built)
        built.zero_grad()


def token_loss(model: Decoder) -> torch.Tensor:
    return nn.functional.cross_entropy(model(IDS[:, :-1]).flatten(0, 1), IDS[:, 1:].flatten())


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_held_blocks_keep_their_bits_and_all_others_learn(optimizer: str, tied: bool) -> None:
    model = decoder(tied)
    held, free = held_and_free(model)
    train(model, lambda: token_loss(model), OPTIMIZERS[optimizer])
    held_after, free_after = held_and_free(model)
    assert sum(len(values) for values in held.values()) > 1000
    for name, values in held.items():
        assert torch.equal(values, held_after[name]), name
        if len(free[name]):
            assert not torch.equal(free[name], free_after[name]), name


def test_a_held_block_is_in_no_gradient_norm_and_no_moment() -> None:
    model = decoder()
    weights, built = HeldWeights.of(model), OPTIMIZERS["adamw"].build(model.named_parameters())
    token_loss(model).backward()  # type: ignore[no-untyped-call]
    weights.zero_gradients()
    weights.step(built)
    for name, parameter in model.named_parameters():
        for block in held_blocks(model.config, name):
            for tensor in (parameter.grad, built.state[parameter]["exp_avg"]):
                assert not tensor.narrow(block.axis, block.start, block.stop - block.start).any(), name


def test_the_rest_of_a_matrix_moves_under_muon_as_if_it_were_alone() -> None:
    """The orthogonal factor of a gradient with zero rows is that of the other rows, up to NorMuon's common scale."""
    model = decoder()
    name = "model.layers.0.self_attn.q_proj.weight"
    parameter = dict(model.named_parameters())[name]
    (block,) = held_blocks(model.config, name)
    before = parameter.data[block.stop :].clone()
    alone = nn.Parameter(before.clone())
    token_loss(model).backward()  # type: ignore[no-untyped-call]
    weights = HeldWeights.of(model)
    weights.zero_gradients()
    assert parameter.grad is not None
    alone.grad = parameter.grad[block.stop :].clone()
    muon = Muon(lr=0.02, adam_lr=0.01, weight_decay=0.0, ns_steps=8)
    weights.step(muon.build([(name, parameter)]))
    muon.build([(name, alone)]).step()
    moved, expected = parameter.data[block.stop :] - before, alone.data - before
    cosine = (moved * expected).sum() / (moved.norm() * expected.norm())
    assert cosine > 0.98


def test_lora_adapters_leave_the_circuit_unchanged_after_the_merge() -> None:
    model = decoder()
    held, free = held_and_free(model)
    attach(model, Lora(rank=4))
    train(model, lambda: token_loss(model), OPTIMIZERS["adamw"])
    merge(model)
    held_after, free_after = held_and_free(model)
    assert all(torch.equal(values, held_after[name]) for name, values in held.items())
    assert not torch.equal(free["model.layers.0.self_attn.o_proj.weight"],
                           free_after["model.layers.0.self_attn.o_proj.weight"])  # fmt: skip


def test_a_value_model_holds_the_circuit_of_its_backbone() -> None:
    model = ValueModel(decoder().config)
    model.init_from_decoder(decoder())
    held, free = held_and_free(model.decoder)
    train(model, lambda: model.values(IDS).square().mean(), OPTIMIZERS["muon"])
    held_after, free_after = held_and_free(model.decoder)
    assert all(torch.equal(values, held_after[name]) for name, values in held.items())
    assert not torch.equal(free["model.norm.weight"], free_after["model.norm.weight"])


def test_without_a_circuit_nothing_is_held(tmp_path: Path) -> None:
    model = Decoder(replace(decoder().config, induction=False))
    assert HeldWeights.of(model).blocks == ()
