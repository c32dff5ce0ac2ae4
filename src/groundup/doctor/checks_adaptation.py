"""Checks of what is added to a decoder: experts kept in balance, adapters that can be merged.

in:  a bench
out: differences
"""

from collections.abc import Iterator
from dataclasses import replace

import torch

from groundup.doctor import reference
from groundup.doctor.check import Check, CheckContext, Difference, compare, draw, equal
from groundup.doctor.checks_model import ROWS, TIME, roundings
from groundup.doctor.toy_models import MOE, MOE_NUMBERS, QWEN3, decoder, documents, texts, weights_of
from groundup.model import lora, moe


def _check_balance(bench: CheckContext) -> Iterator[Difference]:
    """What keeps experts busy: the auxiliary loss and its slope, the counted load, the moving bias."""
    ids, segments, row_weights = texts(ROWS, TIME), documents(ROWS, TIME), [0.5, 0.3, 0.2]
    config = replace(MOE, moe=replace(MOE_NUMBERS, balance="loss", balance_rate=0.7))
    model = decoder(config, bench)
    plain, routed = weights_of(model), list[reference.Routed]()
    reference.hidden(plain, config, ids, segments.tolist(), routed)
    want = 0.7 * reference.balance(routed, segments.tolist(), row_weights)
    model.hidden(ids.flip(1).to(bench.device))  # a load that is to be forgotten
    moe.reset_load(model)
    model.hidden(ids.to(bench.device), segments.to(bench.device))
    got = model.balance_loss(torch.tensor(row_weights, device=bench.device))
    yield compare("balance loss", got, want, roundings(config))
    router = "model.layers.2.mlp.gate.weight"
    slopes = torch.autograd.grad(got, model.get_parameter(router)), torch.autograd.grad(want, plain[router])
    yield compare("balance loss: slope", slopes[0][0], slopes[1][0], 2 * roundings(config))
    real = (segments >= 0)[..., None]
    loads = [[int(((one.chosen == e) & real).sum()) for e in range(MOE_NUMBERS.n_experts)] for one in routed]
    layers = moe.sparse_layers(model)
    yield equal("tokens per expert", [layer.load.tolist() for layer in layers], loads)
    busiest = max(max(load) / (sum(load) / len(load)) for load in loads)
    yield compare("largest load", moe.max_load_ratio(model), torch.tensor(busiest), 2)
    yield from _biased(bench)


def _biased(bench: CheckContext) -> Iterator[Difference]:
    """A bias moves against the load, and only the choice of experts sees it."""
    numbers = replace(MOE_NUMBERS, balance="bias")
    model, loads = decoder(replace(MOE, moe=numbers), bench), [7, 1, 4, 4, 4]
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
    x = draw(30, 2, 12, QWEN3.d_model)
    want = reference.feed_forward(weights, replace(MOE, moe=numbers), x)
    got = feed.to(bench.device)(x.float().to(bench.device))[0]
    yield compare("experts chosen with a bias", got, want, 16)


def _check_lora(bench: CheckContext) -> Iterator[Difference]:
    """Adapters beside frozen weights, and merged into them, are W + alpha / rank B A; they alone learn."""
    ids, how = texts(ROWS, TIME), lora.Lora(rank=3, alpha=7.0, targets=("*.q_proj", "*.down_proj"))
    whole = [[0] * TIME] * ROWS
    for dtype in bench.dtypes:
        model = decoder(QWEN3, bench, dtype)
        plain = {name: weight.detach() for name, weight in weights_of(model).items()}
        before = reference.logits(plain, QWEN3, ids, whole)
        lora.attach(model, how, seed=1)
        with torch.no_grad():
            yield compare(
                "adapters at first", model(ids.to(bench.device)), before, roundings(QWEN3, dtype), dtype
            )
        for seed, (name, part) in enumerate(lora.adapters(model)):
            for matrix, at in ((part.lora_A, 40), (part.lora_B, 80)):
                outer, inner = matrix.weight.shape
                with torch.no_grad():
                    matrix.weight.copy_(draw(at + seed, outer, inner, scale=0.3))
            change = part.lora_B.weight.detach().double().cpu() @ part.lora_A.weight.detach().double().cpu()
            plain[f"{name}.weight"] = plain[f"{name}.weight"] + 7 / 3 * change
        want = reference.logits(plain, QWEN3, ids, whole)
        learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        yield equal("what learns", all(".lora_" in name for name in learning) and len(learning), 2 * 2 * 3)
        for state in ("attached", "merged"):
            if state == "merged":
                lora.merge(model)
                yield equal("adapters left after merging", len(list(lora.adapters(model))), 0)
            with torch.no_grad():
                got = model(ids.to(bench.device))
            yield compare(f"adapters {state}", got, want, 2 * roundings(QWEN3, dtype), dtype)


CHECKS = [
    Check("model: experts", "a mixture of experts isn't kept in balance", _check_balance),
    Check("model: adapters", "a model with LoRA isn't the one that is merged from it", _check_lora),
]
