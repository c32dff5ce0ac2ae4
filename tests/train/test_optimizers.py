"""Which parameter goes to which group, and Muon's step against its papers."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.train.optimizers import by_role, role_of
from groundup.train.optimizers._matrices import MatrixOptimizer, Rules
from groundup.train.optimizers._orthogonal import polar_express
from groundup.train.optimizers.adamw import AdamW
from groundup.train.optimizers.muon import Muon

CONFIG = DecoderConfig(64, 32, 2, 2, 2, 16, 64)
PLAIN = Rules(0.95, 0.0, 0.0, polar_express(10, 1e-3), torch.float32)


def test_only_matrices_inside_the_layers_are_hidden() -> None:
    kinds = by_role(Decoder(CONFIG).named_parameters())
    assert {kind: len(parameters) for kind, parameters in kinds.items()} == {
        "hidden": 2 * 7, "embedding": 1, "head": 1, "scalar": 2 * 4 + 1}  # fmt: skip
    hidden = [name for name, p in Decoder(CONFIG).named_parameters() if role_of(name, p) == "hidden"]
    assert all(name.startswith("model.layers.") and name.endswith("_proj.weight") for name in hidden)


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("model.layers.0.mlp.experts.gate_proj", (4, 8, 6), "hidden"),
        ("model.value_embeds.0.weight", (64, 8), "embedding"),
        ("model.resid_lambdas", (4,), "scalar"),
        ("model.x0_scalars", (2, 4), "scalar"),
        ("score.weight", (1, 8), "head"),
    ],
)
def test_unusual_parameters_find_their_kind(name: str, shape: tuple[int, ...], kind: str) -> None:
    assert role_of(name, nn.Parameter(torch.zeros(shape))) == kind


@pytest.mark.parametrize("part", [AdamW(lr=1e-3, embedding=4, head=0.5, scalar=2), None])
def test_every_kind_has_a_rate_of_its_own(part: AdamW | None) -> None:
    optimizer: Any = part or Muon(lr=0.03, adam_lr=1e-3, embedding=4, head=0.5, scalar=2)
    model = Decoder(CONFIG)
    groups = optimizer.build(model.named_parameters()).param_groups
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    wanted = {"hidden": 1e-3 if part else 0.03, "embedding": 4e-3, "head": 5e-4, "scalar": 2e-3}
    for kind, parameters in by_role(model.named_parameters()).items():
        assert [rates[id(p)] for p in parameters] == pytest.approx([wanted[kind]] * len(parameters))


@pytest.mark.parametrize(
    "part", [AdamW(lr=0.1, weight_decay=0.5), Muon(lr=0.1, adam_lr=0.1, weight_decay=0.5)]
)
def test_frozen_parameters_stay(part: AdamW | Muon) -> None:
    model = nn.ModuleDict({"frozen": nn.Linear(4, 6), "free": nn.Linear(4, 6)})
    model["frozen"].requires_grad_(False)
    before = copy.deepcopy(model)
    for parameter in model["free"].parameters():
        parameter.grad = torch.ones_like(parameter)
    part.build(model.named_parameters()).step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before.get_parameter(name)) == name.startswith("frozen")


def test_adamw_decays_only_matrices_inside_the_layers() -> None:
    model = Decoder(CONFIG)
    optimizer = AdamW(lr=1e-3, weight_decay=0.1).build(model.named_parameters())
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for kind, parameters in by_role(model.named_parameters()).items():
        assert {decays[id(p)] for p in parameters} == {0.1 if kind == "hidden" else 0.0}


def test_adamw_is_torchs_adamw() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"inner": nn.Linear(6, 5), "embed_tokens": nn.Embedding(7, 6)})
    twin = copy.deepcopy(model)
    ours = AdamW(lr=0.01, weight_decay=0.3).build(model.named_parameters())
    matrices = [twin["inner"].weight]
    others = [twin["inner"].bias, twin["embed_tokens"].weight]
    theirs = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.3}, {"params": others, "weight_decay": 0.0}],
        lr=0.01, betas=(0.9, 0.95), foreach=False,
    )  # fmt: skip
    for _ in range(3):
        for one, two in zip(model.parameters(), twin.parameters(), strict=True):
            one.grad = torch.randn_like(one)
            two.grad = one.grad.clone()
        ours.step()
        theirs.step()
    for one, two in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, two)


def exact_factor(matrix: Tensor) -> Tensor:
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    return u @ v


class Textbook:
    """One matrix, by the formulas of the papers, in float64 with the singular value decomposition."""

    def __init__(self, weight: Tensor, rules: Rules, lr: float) -> None:
        self.weight, self.rules, self.lr = weight.double().clone(), rules, lr
        self.momentum = torch.zeros_like(self.weight)
        self.squares = torch.zeros(len(weight), dtype=torch.float64)

    def step(self, gradient: Tensor) -> None:
        rules, gradient = self.rules, gradient.double()
        beta = rules.momentum
        self.momentum = beta * self.momentum + (1 - beta) * gradient
        factor = exact_factor((1 - beta) * gradient + beta * self.momentum)
        rows, columns = factor.shape
        if rules.normuon_beta2:
            for row in range(rows):
                mean = sum(float(value) ** 2 for value in factor[row]) / columns
                self.squares[row] = rules.normuon_beta2 * self.squares[row] + (1 - rules.normuon_beta2) * mean
                factor[row] = factor[row] / float(self.squares[row]) ** 0.5
            change = 0.2 * (rows * columns) ** 0.5 / float((factor**2).sum()) ** 0.5 * factor
        else:
            change = 0.2 * max(rows, columns) ** 0.5 * factor
        for row in range(rows):
            for column in range(columns):
                weight, step = float(self.weight[row, column]), float(change[row, column])
                self.weight[row, column] = weight - self.lr * (step + rules.weight_decay * weight)


VARIANTS = {
    "plain": {},
    "NorMuon": {"normuon_beta2": 0.9},
    "decay": {"weight_decay": 2.0},
    "all": {"normuon_beta2": 0.9, "weight_decay": 2.0},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_is_the_papers_step(variant: str) -> None:
    torch.manual_seed(0)
    rules = Rules(**(vars(PLAIN) | VARIANTS[variant]))
    parameters = [
        nn.Parameter(torch.randn(6, 9)),
        nn.Parameter(torch.randn(9, 6)),
        nn.Parameter(torch.randn(6, 9)),
    ]
    textbooks = [Textbook(parameter.detach(), rules, 0.1) for parameter in parameters]
    optimizer = MatrixOptimizer(parameters, 0.1, rules)
    for _ in range(6):
        for parameter, textbook in zip(parameters, textbooks, strict=True):
            parameter.grad = torch.randn_like(parameter)
            textbook.step(parameter.grad)
        optimizer.step()
    for parameter, textbook in zip(parameters, textbooks, strict=True):
        torch.testing.assert_close(parameter.detach().double(), textbook.weight, atol=2e-4, rtol=0)


def test_experts_in_a_stack_step_as_matrices_of_their_own() -> None:
    torch.manual_seed(0)
    experts = nn.Parameter(torch.randn(3, 5, 8))
    single = [nn.Parameter(matrix.detach().clone()) for matrix in experts]
    together, apart = MatrixOptimizer([experts], 0.1, PLAIN), MatrixOptimizer(single, 0.1, PLAIN)
    for _ in range(3):
        experts.grad = torch.randn_like(experts)
        for matrix, gradient in zip(single, experts.grad, strict=True):
            matrix.grad = gradient.clone()
        together.step()
        apart.step()
    torch.testing.assert_close(experts.detach(), torch.stack([matrix.detach() for matrix in single]))


def test_muons_step_has_adamws_size() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"inner": nn.Linear(48, 24, bias=False), "norm": nn.RMSNorm(16)})
    weight = model["inner"].weight
    before = weight.detach().clone()
    weight.grad = torch.randn_like(weight)
    Muon(lr=0.1, adam_lr=0.1).build(model.named_parameters()).step()
    moved = before - weight.detach()
    assert moved.square().mean().sqrt() == pytest.approx(0.1 * 0.2, rel=0.02)
    # Four to five iterations in bf16 come near the orthogonal factor, evened out over neurons.
    factor = exact_factor(weight.grad)
    factor = factor / factor.norm(dim=1, keepdim=True)
    assert torch.cosine_similarity(moved.flatten(), factor.flatten(), dim=0) > 0.98


@pytest.mark.parametrize("part", [Muon(lr=0.02, adam_lr=0.01, weight_decay=0.1), AdamW(lr=0.01)])
def test_a_restored_optimizer_takes_the_same_step_to_the_bit(part: Muon | AdamW) -> None:
    torch.manual_seed(0)
    model = Decoder(CONFIG)
    model.init_weights(0)

    def steps(optimizer: torch.optim.Optimizer, model: Decoder, seeds: range) -> None:
        for seed in seeds:
            ids = torch.randint(0, 64, (2, 12), generator=torch.Generator().manual_seed(seed))
            model(ids).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    optimizer = part.build(model.named_parameters())
    steps(optimizer, model, range(3))
    twin = copy.deepcopy(model)
    restored = part.build(twin.named_parameters())
    # What a checkpoint keeps: tensors and plain numbers by the parameter's index.
    saved = {
        index: {key: value.clone() if isinstance(value, Tensor) else value for key, value in values.items()}
        for index, values in optimizer.state_dict()["state"].items()
    }
    assert len(saved) == len(list(model.parameters()))
    assert all(
        isinstance(value, Tensor | int | float) for values in saved.values() for value in values.values()
    )
    restored.load_state_dict({"state": saved, "param_groups": restored.state_dict()["param_groups"]})
    steps(optimizer, model, range(3, 6))
    steps(restored, twin, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_on_cuda_never_waits_for_the_device() -> None:
    model = Decoder(CONFIG).cuda()
    optimizer = Muon(lr=0.02, adam_lr=0.01, weight_decay=0.1).build(model.named_parameters())
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()  # the state is made
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
