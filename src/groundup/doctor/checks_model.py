"""Checks of the whole decoder: logits and gradients, documents and rows that know nothing of each other, files.

in:  a bench
out: differences, for every config of `probes.CONFIGS` and every dtype
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from groundup.doctor import formulas, reference
from groundup.doctor.check import Check, CheckContext, Difference, compare, equal
from groundup.doctor.toy_models import (
    CONFIGS,
    QWEN3,
    VOCAB,
    decoder,
    documents,
    dtypes,
    loud,
    texts,
    weights_of,
)
from groundup.model import checkpoint, losses, value_head
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder

ROWS, TIME = 3, 32


def roundings(config: DecoderConfig, dtype: torch.dtype = torch.float32) -> float:
    """After each other: about eight in a layer (norms, products, sums), four more with experts, four in the head.

    A lower dtype rounds only results, not the sums within a product, and such errors partly cancel: the root.
    """
    count = (12 if config.moe else 8) * config.n_layers + 4
    return count if dtype == torch.float32 else math.sqrt(count)


def plain_logits(model: Decoder, ids: Tensor, segments: Tensor | None = None) -> Tensor:
    """The reference's logits; without segments every row is one document."""
    whole = torch.zeros_like(ids) if segments is None else segments
    with torch.no_grad():
        return reference.logits(weights_of(model), model.config, ids, whole.tolist())


def compare_slopes(
    what: str, model: Decoder, plain: dict[str, Tensor], dtype: torch.dtype
) -> Iterator[Difference]:
    """The gradient of every parameter against that of the reference's weights, after backward passes of both.

    A slope that is small because large terms cancel can't be held to its own size: to a tenth of the largest one.
    """
    wanted = {name: weight.grad for name, weight in plain.items() if weight.grad is not None}
    largest = max(float(slope.abs().max()) for slope in wanted.values())
    allowed = 2 * roundings(model.config, dtype)  # forward and backward
    for name, parameter in model.named_parameters():
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        scale = max(float(wanted[name].abs().max()), largest / 10)
        yield compare(f"{what}: gradient of {name}", found, wanted[name], allowed, dtype, scale)


def _check_logits(bench: CheckContext) -> Iterator[Difference]:
    ids, segments = texts(ROWS, TIME), documents(ROWS, TIME)
    for name, config in CONFIGS.items():
        plain = decoder(config, bench)
        whole, parted = plain_logits(plain, ids), plain_logits(plain, ids, segments)
        for dtype in dtypes(config, bench):
            model, there = decoder(config, bench, dtype), ids.to(bench.device)
            with torch.no_grad():
                yield compare(f"{name}: logits", model(there), whole, roundings(config, dtype), dtype)
                got = model(there, segments.to(bench.device))
            yield compare(f"{name}: logits of documents", got, parted, roundings(config, dtype), dtype)
            # With gradients on, the forward pass takes the way of training.
            got = model.logits(model.hidden(there, segments.to(bench.device)))
            yield compare(f"{name}: logits in training", got, parted, roundings(config, dtype), dtype)


def _check_gradients(bench: CheckContext) -> Iterator[Difference]:
    """The slope of a weighted cross-entropy for every parameter, summed over documents and rows."""
    ids, segments = texts(ROWS, TIME + 1), documents(ROWS, TIME)
    targets = ids[:, 1:].flatten()
    weights = (segments >= 0).flatten().float() / 40
    for name, config in CONFIGS.items():
        plain = weights_of(decoder(config, bench))
        logits = reference.logits(plain, config, ids[:, :-1], segments.tolist())
        want = formulas.cross_entropy(logits.flatten(0, 1), targets, weights.double())
        want.backward()  # type: ignore[no-untyped-call]
        for dtype in dtypes(config, bench):
            model = decoder(config, bench, dtype)
            hidden = model.hidden(ids[:, :-1].to(bench.device), segments.to(bench.device)).flatten(0, 1)
            loss = losses.cross_entropy(
                hidden,
                model.head_weight,
                targets.to(bench.device),
                weights.to(bench.device),
                cap=config.logit_softcap,
            )[0]
            loss.backward()  # type: ignore[no-untyped-call]
            yield compare(f"{name}: loss", loss, want, roundings(config, dtype), dtype)
            yield from compare_slopes(name, model, plain, dtype)


def _check_documents(bench: CheckContext) -> Iterator[Difference]:
    """A document among others and padding, all of them made of one huge token, against the same one in peace."""
    poison, start, end = VOCAB - 1, 8, 20
    ids = texts(1, TIME) % poison
    loud_ids = ids.clone()
    loud_ids[:, :start], loud_ids[:, end:] = poison, poison
    segments = torch.tensor([[0] * start + [1] * (end - start) + [2] * 4 + [-1] * (TIME - end - 4)])
    for name, config in CONFIGS.items():
        for dtype in dtypes(config, bench):
            model = decoder(config, bench, dtype)
            with torch.no_grad():
                model.model.embed_tokens.weight[poison] = 2.0**20
                clean = model.hidden(ids.to(bench.device), segments.to(bench.device))[:, start:end]
                got = model.hidden(loud_ids.to(bench.device), segments.to(bench.device))[:, start:end]
                alone = model.hidden(ids[:, start:end].to(bench.device))
            yield compare(f"{name}: among poisoned documents", got, clean, roundings(config, dtype), dtype)
            # Angles are rounded anew at other positions.
            allowed = max(2 * roundings(config, dtype), TIME if dtype == torch.float32 else 0)
            yield compare(f"{name}: among other documents", got, alone, allowed, dtype)


def _check_rows(bench: CheckContext) -> Iterator[Difference]:
    """A row gives the same alone as in a batch, up to the rounding of products of another shape."""
    ids, segments = texts(5, TIME).to(bench.device), documents(5, TIME).to(bench.device)
    for name, config in CONFIGS.items():
        for dtype in dtypes(config, bench):
            model = decoder(config, bench, dtype)
            with torch.no_grad():
                together = model.hidden(ids, segments)
                for row in range(len(ids)):
                    alone = model.hidden(ids[row : row + 1], segments[row : row + 1])
                    yield compare(
                        f"{name}: row {row} alone", alone[0], together[row], roundings(config, dtype), dtype
                    )


def _check_values(bench: CheckContext) -> Iterator[Difference]:
    """Reward model and critic: a trunk with one number on top."""
    ids, segments = texts(ROWS, TIME), documents(ROWS, TIME)
    for name, config in CONFIGS.items():
        model = value_head.ValueModel(config)
        loud(model)
        plain = {part.removeprefix("decoder."): weight for part, weight in weights_of(model).items()}
        hidden = reference.hidden(plain, config, ids, segments.tolist())
        want = hidden @ plain["score.weight"][0]
        model.to(bench.device)
        for dtype in dtypes(config, bench):
            model.compute_dtype = dtype
            got = model.values(ids.to(bench.device), segments.to(bench.device))
            yield compare(f"{name}: values", got, want, roundings(config, dtype), dtype)


def _check_files(bench: CheckContext) -> Iterator[Difference]:
    """Saved and loaded, a model has the same weights and gives the same logits to the last bit."""
    ids = texts(ROWS, TIME).to(bench.device)
    for name, config in CONFIGS.items():
        model = decoder(config, bench)
        folder = bench.folder / name
        folder.mkdir()
        checkpoint.save_model(folder, model)
        back = checkpoint.load_decoder(folder, bench.device)
        yield equal(f"{name}: config", back.config, config)
        with torch.no_grad():
            yield equal(f"{name}: logits of a loaded model", back(ids), model(ids))
    critic = value_head.ValueModel(QWEN3)
    critic.init_from_decoder(decoder(QWEN3, bench).cpu())
    folder = bench.folder / "critic"
    folder.mkdir()
    checkpoint.save_model(folder, critic)
    found = checkpoint.load_value_model(folder, bench.device)
    with torch.no_grad():
        yield equal("values of a loaded critic", found.values(ids), critic.to(bench.device).values(ids))


CHECKS = [
    Check("model: logits", "the model computes something else than its architecture", _check_logits),
    Check("model: gradients", "training moves weights in a wrong direction", _check_gradients),
    Check("model: documents", "documents packed into one row leak into each other", _check_documents),
    Check("model: rows", "what a text gives depends on who shares its batch", _check_rows),
    Check("model: values", "reward models and critics are misread", _check_values),
    Check("model: checkpoint", "a saved model isn't the one that was trained", _check_files),
]
