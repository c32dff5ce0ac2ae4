"""The mixture of experts against a loop over tokens, and what keeps its experts busy."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from decoders import FAST, QWEN3_MOE, decoder
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

from groundup.model import flops
from groundup.model.attention import segments_of
from groundup.model.config import DecoderConfig, MoE
from groundup.model.decoder import Decoder
from groundup.model.grouped_gemm import grouped_product
from groundup.model.moe import (
    Routing,
    SparseFeedForward,
    balance_loss_per_row,
    count_tokens,
    reset_load,
    sparse_layers,
    update_biases,
)
from groundup.train.moe_balance import ExpertBalancer

BOS, PAD = 1, 0
IDS = torch.tensor([[BOS, 7, 8, 9, BOS, 20, 21, 22, 23, BOS, 40, 41, PAD, PAD], [BOS, *range(50, 63)]])
SEGMENTS = segments_of(IDS, BOS, PAD)
RAW = replace(QWEN3_MOE, moe=MoE(n_experts=5, n_experts_per_token=3, d_expert=20, normalize=False))
BIASED = FAST['balance = "bias"']
CONFIGS = {"normalized": QWEN3_MOE, "raw": RAW, "shared": FAST["n_shared_experts"], "biased": BIASED}


def by_hand(layer: SparseFeedForward, numbers: MoE, x: Tensor) -> Tensor:
    """Token by token and expert by expert."""
    rows = []
    for token in x.flatten(0, 1):
        probs = (layer.gate.weight @ token).softmax(dim=0)
        bias = layer.gate.bias if layer.gate.bias is not None else torch.zeros(len(probs))
        ranked = sorted(range(len(probs)), key=lambda e: -(probs[e] + bias[e]).item())
        chosen = ranked[: numbers.n_experts_per_token]
        total = sum(probs[e] for e in chosen) if numbers.normalize else 1.0
        out = torch.zeros_like(token)
        for e in chosen:
            gate, up = (layer.experts.gate_up_proj[e] @ token).chunk(2)
            out = out + probs[e] / total * (layer.experts.down_proj[e] @ (F.silu(gate) * up))
        if layer.shared_experts is not None:
            parts = dict(layer.shared_experts.named_parameters())
            up = parts["up_proj.weight"] @ token
            out = out + parts["down_proj.weight"] @ (F.silu(parts["gate_proj.weight"] @ token) * up)
        rows.append(out)
    return torch.stack(rows).view_as(x)


def layer_of(config: DecoderConfig) -> SparseFeedForward:
    return sparse_layers(decoder(config))[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_output_and_gradients_equal_those_of_a_loop_over_tokens(name: str) -> None:
    config, layer = CONFIGS[name], layer_of(CONFIGS[name])
    assert config.moe is not None
    x = torch.randn(2, 11, config.d_model, generator=torch.Generator().manual_seed(3), requires_grad=True)
    inputs = [x, *layer.parameters()]
    ours, expected = layer(x)[0], by_hand(layer, config.moe, x)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    for one, two in zip(
        *(torch.autograd.grad(out.sin().sum(), inputs) for out in (ours, expected)), strict=True
    ):
        assert one.abs().sum() > 0
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("dtype", "width", "tolerance"),
    [(torch.float32, 12, 1e-5), (torch.bfloat16, 16, 0.05), (torch.bfloat16, 12, 0.05)],
)
def test_grouped_products_equal_one_product_per_group(
    dtype: torch.dtype, width: int, tolerance: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = [3, 0, 7, 1, 0]
    rows = torch.randn(11, width, generator=generator).to(dtype).requires_grad_()
    matrices = torch.randn(5, 24, width, generator=generator).to(dtype).requires_grad_()
    ends = torch.tensor(sizes).cumsum(0).to(torch.int32)
    ours = grouped_product(rows, matrices, ends)
    plain = torch.cat(
        [part.double() @ m.double().T for part, m in zip(rows.split(sizes), matrices, strict=True)]
    )
    found = torch.autograd.grad(ours.double().sin().sum(), (rows, matrices))
    wanted = torch.autograd.grad(plain.sin().sum(), (rows, matrices))
    for one, two in zip((ours, *found), (plain, *wanted), strict=True):
        torch.testing.assert_close(one.double(), two.double(), atol=tolerance, rtol=10 * tolerance)


def test_a_token_does_not_notice_the_others() -> None:
    layer = layer_of(QWEN3_MOE)
    x = torch.randn(1, 9, 48, generator=torch.Generator().manual_seed(0))
    others = torch.randn(1, 200, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        alone, among = layer(x)[0], layer(torch.cat((others, x), dim=1))[0][:, 200:]
    torch.testing.assert_close(alone, among, atol=1e-6, rtol=1e-6)


def test_a_bias_changes_who_is_chosen_but_not_the_weights() -> None:
    layer = layer_of(BIASED)
    assert layer.gate.bias is not None
    x = torch.randn(1, 30, 48, generator=torch.Generator().manual_seed(0))
    layer.gate.bias.copy_(torch.tensor([10.0, 5.0, 0.0, 0.0]))
    weights, routing = layer.gate(x)
    assert set(routing.chosen.flatten().tolist()) == {0, 1}
    first_two = routing.probs[..., :2] / routing.probs[..., :2].sum(dim=-1, keepdim=True)
    torch.testing.assert_close(weights, first_two)


def test_the_balance_loss_is_that_of_transformers_per_row_and_choice() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 10, 6, generator=generator, requires_grad=True)
    real = torch.ones(2, 10, dtype=torch.bool)
    real[0, 7:] = False
    routing = Routing(logits.softmax(-1), logits.topk(2, dim=-1).indices)
    ours = balance_loss_per_row(routing, real)
    for row in range(2):
        theirs = load_balancing_loss_func((logits[row],), 6, 2, real[row : row + 1])
        torch.testing.assert_close(ours[row], theirs / 2)
    even = Routing(torch.full((1, 6, 6), 1 / 6), torch.arange(6)[None, :, None])
    torch.testing.assert_close(balance_loss_per_row(even, real[1:, :6]), torch.ones(1))


def test_balance_losses_of_micro_batches_add_up_to_that_of_the_step() -> None:
    model = decoder(QWEN3_MOE)
    weights = torch.tensor([0.4, 0.6])
    grads = []
    for parts in ((slice(0, 2),), (slice(0, 1), slice(1, 2))):
        model.zero_grad()
        total = torch.zeros(())
        for part in parts:
            model.hidden(IDS[part], SEGMENTS[part])
            loss = model.balance_loss(weights[part])
            loss.backward()
            total = total + loss.detach()
        grads.append((total, *(p.grad for p in model.parameters() if p.grad is not None)))
    assert grads[0][0] > 0 and len(grads[0]) > 2
    for one, two in zip(*grads, strict=True):
        torch.testing.assert_close(one, two, atol=1e-8, rtol=1e-4)


def test_a_model_that_balances_otherwise_adds_nothing() -> None:
    model = decoder(BIASED)
    model.hidden(IDS, SEGMENTS)
    assert model.balance_loss(torch.ones(2)).item() == 0


def test_only_real_tokens_and_training_passes_are_counted() -> None:
    model = decoder(QWEN3_MOE)
    with torch.no_grad():
        model.hidden(IDS, SEGMENTS)
    assert all(layer.load.sum() == 0 for layer in sparse_layers(model))
    model.hidden(IDS, SEGMENTS)
    model.hidden(IDS[1:], SEGMENTS[1:])
    assert [int(layer.load.sum()) for layer in sparse_layers(model)] == [2 * (12 + 14 + 14)] * 2
    reset_load(model)
    assert all(layer.load.sum() == 0 for layer in sparse_layers(model))
    assert count_tokens(torch.tensor([0, 2, 2, -1]), 4).tolist() == [1, 0, 2, 0]


def test_biases_move_against_the_load_until_it_is_even() -> None:
    model = decoder(BIASED)
    layer = sparse_layers(model)[0]
    layer.load.copy_(torch.tensor([10, 2, 0, 8]))
    layer.gate.bias.zero_()  # type: ignore[union-attr]
    update_biases(model, 0.01)
    torch.testing.assert_close(layer.gate.bias, torch.tensor([-0.01, 0.01, 0.01, -0.01]))
    with torch.no_grad():
        for each in sparse_layers(model):
            each.gate.weight[0] += 0.3 * each.gate.weight.norm(dim=1).mean()
    watch, loads = ExpertBalancer(model, replace(BIASED, moe=replace(BIASED.moe, balance_rate=0.02))), []
    ids = torch.randint(2, 96, (8, 64), generator=torch.Generator().manual_seed(0))
    for step in range(1, 41):
        watch.before_step(step)
        model.hidden(ids)
        loads.append(float(watch.after_step(step)["expert_load"]))
    assert loads[0] > 1.5
    assert loads[-1] < 1.2


def test_recomputed_layers_count_once_and_give_the_same_gradients() -> None:
    found = []
    for activation_checkpointing in (False, True):
        model = decoder(QWEN3_MOE)
        for layer in model.model.layers if activation_checkpointing else []:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
        hidden = model.hidden(IDS, SEGMENTS)
        (hidden.sin().sum() + model.balance_loss(torch.ones(2))).backward()
        found.append([*(p.grad for p in model.parameters()), *(layer.load for layer in sparse_layers(model))])
    for one, two in zip(*found, strict=True):
        assert (one is None and two is None) or torch.equal(one, two)


@pytest.mark.filterwarnings("default")  # the compiler warns of its own doings
@pytest.mark.parametrize(
    ("dtype", "backend"),
    [
        (torch.float32, "aot_eager"),
        (torch.bfloat16, "aot_eager"),
        pytest.param(torch.bfloat16, "inductor", marks=pytest.mark.slow),
    ],
)
def test_layers_compile_in_one_piece_and_compute_the_same(dtype: torch.dtype, backend: str) -> None:
    found = []
    for compiled in (False, True):
        model = decoder(replace(QWEN3_MOE, n_layers=1))
        model.compute_dtype = dtype
        for layer in model.model.layers if compiled else []:
            layer.compile(dynamic=False, fullgraph=True, backend=backend)
        hidden = model.hidden(IDS, SEGMENTS)
        (hidden.float().sin().sum() + model.balance_loss(torch.ones(2))).backward()
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        found.append((hidden, *grads, *(layer.load for layer in sparse_layers(model))))
    for one, two in zip(*found, strict=True):
        error = (one.float() - two.float()).norm() / one.float().norm()
        assert error < (1e-5 if dtype == torch.float32 else 0.1)


def test_a_token_meets_as_many_matrix_parameters_as_are_counted() -> None:
    for config in (QWEN3_MOE, FAST["n_shared_experts"]):
        model, moe = Decoder(config), config.moe
        assert moe is not None
        expert = sum(p[0].numel() for p in sparse_layers(model)[0].experts.parameters())
        idle = config.n_layers * (moe.n_experts - moe.n_experts_per_token) * expert
        matrices = sum(
            p.numel() for name, p in model.named_parameters() if p.dim() > 1 and "embed" not in name
        )
        assert flops.matmul_parameters(config) == matrices - idle
        assert flops.parameters(config) == sum(p.numel() for p in model.parameters())


def test_experts_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="experts support only"):
        replace(QWEN3_MOE, activation="relu2")
    with pytest.raises(ValueError, match="n_experts_per_token = 7 must be between 1 and n_experts = 6"):
        MoE(n_experts=6, n_experts_per_token=7, d_expert=8)
