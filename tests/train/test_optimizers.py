"""Which parameter goes to which optimizer, and Muon's step against its paper."""

import pytest
import torch
from torch import nn

from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.train.optimizers import is_hidden_matrix
from groundup.train.optimizers.adamw import AdamW
from groundup.train.optimizers.muon import Muon

CONFIG = DecoderConfig(64, 32, 2, 2, 2, 16, 64)


def test_only_matrices_inside_the_layers_are_hidden() -> None:
    hidden = [name for name, p in Decoder(CONFIG).named_parameters() if is_hidden_matrix(name, p)]
    assert len(hidden) == 2 * 7
    assert all(name.startswith("model.layers.") and name.endswith("_proj.weight") for name in hidden)


def test_rates_follow_from_the_width() -> None:
    assert AdamW().resolved(256).lr == pytest.approx(3e-3)
    assert AdamW().resolved(1024).lr == pytest.approx(1.5e-3)
    assert AdamW(lr=1e-4).resolved(1024).lr == 1e-4
    assert Muon().resolved(1024).adam_lr == pytest.approx(3e-3)


def test_decay_is_for_matrices_inside_the_layers() -> None:
    groups = AdamW(lr=1e-3, weight_decay=0.1).build(Decoder(CONFIG).named_parameters()).param_groups
    assert [(group["weight_decay"], len(group["params"])) for group in groups] == [
        (0.1, 14), (0.0, len(list(Decoder(CONFIG).parameters())) - 14)]  # fmt: skip


def test_muons_first_step_is_the_orthogonal_factor_of_the_gradient() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"inner": nn.Linear(24, 16, bias=False), "norm": nn.RMSNorm(16)})
    weight = model["inner"].weight
    before = weight.detach().clone()
    optimizer = Muon(lr=0.1, adam_lr=0.1).build(model.named_parameters())
    gradient = torch.randn(16, 24)
    weight.grad = gradient.clone()
    optimizer.step()
    moved = (before - weight.detach()).double()
    u, _, v = torch.linalg.svd(gradient.double(), full_matrices=False)
    cosine = (moved * (u @ v)).sum() / (moved.norm() * (u @ v).norm())
    assert cosine > 0.98  # five Newton-Schulz iterations come near, by design not nearer
    # match_rms_adamw: the step has the size 0.2 * lr * sqrt(larger side) of an AdamW step.
    singular = torch.linalg.svdvals(moved) / (0.1 * 0.2 * 24**0.5)
    assert (singular - 1).abs().max() < 0.4
