"""Checks of expert balancing and of LoRA adapters.

in:  a `CheckContext`
out: differences
"""

from collections.abc import Iterator
from dataclasses import replace

import torch

from groundup.doctor import reference
from groundup.doctor.check import Check, CheckContext, Difference, compare, equal, normal
from groundup.doctor.checks_model import ROWS, TIME, roundings
from groundup.doctor.toy_models import (
    MOE,
    MOE_CONFIG,
    QWEN3,
    decoder,
    document_segments,
    random_ids,
    weights_of,
)
from groundup.model import lora, moe


def _check_balance(context: CheckContext) -> Iterator[Difference]:
    """Expert balancing: the auxiliary loss and its gradient, the counted load, the bias updates."""
    ids, segments, row_weights = random_ids(ROWS, TIME), document_segments(ROWS, TIME), [0.5, 0.3, 0.2]
    config = replace(MOE, moe=replace(MOE_CONFIG, balance="loss", balance_rate=0.7))
    model = decoder(config, context)
    plain, router_outputs = weights_of(model), list[reference.RouterOutput]()
    reference.hidden(plain, config, ids, segments.tolist(), router_outputs)
    want = 0.7 * reference.balance(router_outputs, segments.tolist(), row_weights)
    model.hidden(ids.flip(1).to(context.device))  # a load that reset_load must clear
    moe.reset_load(model)
    model.hidden(ids.to(context.device), segments.to(context.device))
    got = model.balance_loss(torch.tensor(row_weights, device=context.device))
    yield compare("balance loss", got, want, roundings(config))
    router = "model.layers.2.mlp.gate.weight"
    gradients = (
        torch.autograd.grad(got, model.get_parameter(router)),
        torch.autograd.grad(want, plain[router]),
    )
    yield compare("balance loss: gradient", gradients[0][0], gradients[1][0], 2 * roundings(config))
    real = (segments >= 0)[..., None]
    loads = [
        [int(((one.chosen == e) & real).sum()) for e in range(MOE_CONFIG.n_experts)] for one in router_outputs
    ]
    layers = moe.sparse_layers(model)
    yield equal("tokens per expert", [layer.load.tolist() for layer in layers], loads)
    busiest = max(max(load) / (sum(load) / len(load)) for load in loads)
    yield compare("largest load", moe.max_load_ratio(model), torch.tensor(busiest), 2)
    yield from _biased(context)


def _biased(context: CheckContext) -> Iterator[Difference]:
    """The router bias moves against the load and affects the choice of experts only."""
    numbers = replace(MOE_CONFIG, balance="bias")
    model, loads = decoder(replace(MOE, moe=numbers), context), [7, 1, 4, 4, 4]
    for layer in moe.sparse_layers(model):
        layer.load.copy_(torch.tensor(loads))
    moe.update_biases(model, 0.25)
    moved = [-0.25, 0.25, 0.0, 0.0, 0.0]
    for layer in moe.sparse_layers(model):
        assert layer.gate.bias is not None
        yield equal("biases against the load", layer.gate.bias.tolist(), moved)
    feed = moe.sparse_layers(model)[0]
    weights = {f"mlp.{name}": weight for name, weight in weights_of(feed.cpu()).items()}
    weights["mlp.gate.bias"] = torch.tensor(moved, dtype=torch.float64)
    x = normal(30, 2, 12, QWEN3.d_model)
    want = reference.feed_forward(weights, replace(MOE, moe=numbers), x)
    got = feed.to(context.device)(x.float().to(context.device))[0]
    yield compare("experts chosen with a bias", got, want, 16)


def _check_lora(context: CheckContext) -> Iterator[Difference]:
    """LoRA, attached and merged, computes W + alpha / rank B A; only A and B are trainable."""
    ids, how = random_ids(ROWS, TIME), lora.Lora(rank=3, alpha=7.0, targets=("*.q_proj", "*.down_proj"))
    whole = [[0] * TIME] * ROWS
    for dtype in context.dtypes:
        model = decoder(QWEN3, context, dtype)
        plain = {name: weight.detach() for name, weight in weights_of(model).items()}
        before = reference.logits(plain, QWEN3, ids, whole)
        lora.attach(model, how, seed=1)
        with torch.no_grad():
            yield compare(
                "initial adapters", model(ids.to(context.device)), before, roundings(QWEN3, dtype), dtype
            )
        for seed, (name, part) in enumerate(lora.adapters(model)):
            for matrix, at in ((part.lora_A, 40), (part.lora_B, 80)):
                outer, inner = matrix.weight.shape
                with torch.no_grad():
                    matrix.weight.copy_(normal(at + seed, outer, inner, scale=0.3))
            change = part.lora_B.weight.detach().double().cpu() @ part.lora_A.weight.detach().double().cpu()
            plain[f"{name}.weight"] = plain[f"{name}.weight"] + 7 / 3 * change
        want = reference.logits(plain, QWEN3, ids, whole)
        learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        yield equal(
            "trainable parameters", all(".lora_" in name for name in learning) and len(learning), 2 * 2 * 3
        )
        for state in ("attached", "merged"):
            if state == "merged":
                lora.merge(model)
                yield equal("adapters left after merging", len(list(lora.adapters(model))), 0)
            with torch.no_grad():
                got = model(ids.to(context.device))
            yield compare(f"adapters {state}", got, want, 2 * roundings(QWEN3, dtype), dtype)


CHECKS = [
    Check("model: experts", "the load of a mixture of experts isn't balanced", _check_balance),
    Check("model: adapters", "a model with LoRA differs from its merged model", _check_lora),
]
