"""Checks of the whole decoder: logits, gradients, isolation of documents and batch rows, checkpoints.

in:  a `CheckContext`
out: differences, for every config of `toy_models.CONFIGS` and every dtype
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
    document_segments,
    dtypes,
    random_ids,
    set_distinct_weights,
    weights_of,
)
from groundup.model import checkpoint, losses, value_head
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder

ROWS, TIME = 3, 32


def roundings(config: DecoderConfig, dtype: torch.dtype = torch.float32) -> float:
    """Consecutive roundings: about eight per layer (norms, products, sums), four more with experts, four in the head.

    A lower dtype rounds results only, not the sums within a product, and the errors partly cancel: the square root.
    """
    count = (12 if config.moe else 8) * config.n_layers + 4
    return count if dtype == torch.float32 else math.sqrt(count)


def plain_logits(model: Decoder, ids: Tensor, segments: Tensor | None = None) -> Tensor:
    """The reference's logits; without segments each row is one document."""
    whole = torch.zeros_like(ids) if segments is None else segments
    with torch.no_grad():
        return reference.logits(weights_of(model), model.config, ids, whole.tolist())


def compare_gradients(
    what: str, model: Decoder, plain: dict[str, Tensor], dtype: torch.dtype
) -> Iterator[Difference]:
    """The gradient of every parameter against the reference's, after both backward passes.

    Errors are relative to the gradient or a tenth of the largest one: small gradients may be sums of large terms.
    """
    wanted = {name: weight.grad for name, weight in plain.items() if weight.grad is not None}
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    allowed = 3 * roundings(model.config, dtype)  # the backward pass has two products for each one forward
    for name, parameter in model.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        scale = max(float(wanted[name].abs().max()), largest / 10)
        yield compare(f"{what}: gradient of {name}", gradient, wanted[name], allowed, dtype, scale)


def _check_logits(context: CheckContext) -> Iterator[Difference]:
    ids, segments = random_ids(ROWS, TIME), document_segments(ROWS, TIME)
    for name, config in CONFIGS.items():
        plain = decoder(config, context)
        whole, parted = plain_logits(plain, ids), plain_logits(plain, ids, segments)
        for dtype in dtypes(config, context):
            model, there = decoder(config, context, dtype), ids.to(context.device)
            with torch.no_grad():
                yield compare(f"{name}: logits", model(there), whole, roundings(config, dtype), dtype)
                got = model(there, segments.to(context.device))
            yield compare(f"{name}: logits of documents", got, parted, roundings(config, dtype), dtype)
            # With gradients enabled the forward pass is that of training.
            got = model.logits(model.hidden(there, segments.to(context.device)))
            yield compare(f"{name}: logits in training", got, parted, roundings(config, dtype), dtype)


def _check_gradients(context: CheckContext) -> Iterator[Difference]:
    """The gradient of a weighted cross-entropy for every parameter."""
    ids, segments = random_ids(ROWS, TIME + 1), document_segments(ROWS, TIME)
    targets = ids[:, 1:].flatten()
    weights = (segments >= 0).flatten().float() / 40
    for name, config in CONFIGS.items():
        plain = weights_of(decoder(config, context))
        logits = reference.logits(plain, config, ids[:, :-1], segments.tolist())
        want = formulas.cross_entropy(logits.flatten(0, 1), targets, weights.double())
        want.backward()  # type: ignore[no-untyped-call]
        for dtype in dtypes(config, context):
            model = decoder(config, context, dtype)
            hidden = model.hidden(ids[:, :-1].to(context.device), segments.to(context.device)).flatten(0, 1)
            loss = losses.cross_entropy(
                hidden,
                model.head_weight,
                targets.to(context.device),
                weights.to(context.device),
                cap=config.logit_softcap,
            )[0]
            loss.backward()  # type: ignore[no-untyped-call]
            yield compare(f"{name}: loss", loss, want, roundings(config, dtype), dtype)
            yield from compare_gradients(name, model, plain, dtype)


def _check_documents(context: CheckContext) -> Iterator[Difference]:
    """A document among others and padding made of one huge token, against the same document without them."""
    poison, start, end = VOCAB - 1, 8, 20
    ids = random_ids(1, TIME) % poison
    poisoned_ids = ids.clone()
    poisoned_ids[:, :start], poisoned_ids[:, end:] = poison, poison
    segments = torch.tensor([[0] * start + [1] * (end - start) + [2] * 4 + [-1] * (TIME - end - 4)])
    for name, config in CONFIGS.items():
        for dtype in dtypes(config, context):
            model = decoder(config, context, dtype)
            with torch.no_grad():
                model.model.embed_tokens.weight[poison] = 2.0**20
                clean = model.hidden(ids.to(context.device), segments.to(context.device))[:, start:end]
                got = model.hidden(poisoned_ids.to(context.device), segments.to(context.device))[:, start:end]
                alone = model.hidden(ids[:, start:end].to(context.device))
            yield compare(f"{name}: among poisoned documents", got, clean, roundings(config, dtype), dtype)
            # RoPE angles round differently at other positions.
            allowed = max(2 * roundings(config, dtype), TIME if dtype == torch.float32 else 0)
            yield compare(f"{name}: among other documents", got, alone, allowed, dtype)


def _check_batch(context: CheckContext) -> Iterator[Difference]:
    """A row's outputs are the same alone and in a batch, up to rounding."""
    ids, segments = random_ids(5, TIME).to(context.device), document_segments(5, TIME).to(context.device)
    for name, config in CONFIGS.items():
        for dtype in dtypes(config, context):
            model = decoder(config, context, dtype)
            with torch.no_grad():
                together = model.hidden(ids, segments)
                for row in range(len(ids)):
                    alone = model.hidden(ids[row : row + 1], segments[row : row + 1])
                    yield compare(
                        f"{name}: row {row} alone", alone[0], together[row], roundings(config, dtype), dtype
                    )


def _check_values(context: CheckContext) -> Iterator[Difference]:
    """Reward model and critic: a backbone with a value head."""
    ids, segments = random_ids(ROWS, TIME), document_segments(ROWS, TIME)
    for name, config in CONFIGS.items():
        model = value_head.ValueModel(config)
        set_distinct_weights(model)
        plain = {part.removeprefix("decoder."): weight for part, weight in weights_of(model).items()}
        hidden = reference.hidden(plain, config, ids, segments.tolist())
        want = hidden @ plain["score.weight"][0]
        model.to(context.device)
        for dtype in dtypes(config, context):
            model.compute_dtype = dtype
            got = model.values(ids.to(context.device), segments.to(context.device))
            yield compare(f"{name}: values", got, want, roundings(config, dtype), dtype)


def _check_files(context: CheckContext) -> Iterator[Difference]:
    """A saved and loaded model has the same config and bitwise the same logits."""
    ids = random_ids(ROWS, TIME).to(context.device)
    for name, config in CONFIGS.items():
        model = decoder(config, context)
        folder = context.folder / name
        folder.mkdir()
        checkpoint.save_model(folder, model)
        back = checkpoint.load_decoder(folder, context.device)
        yield equal(f"{name}: config", back.config, config)
        with torch.no_grad():
            yield equal(f"{name}: logits of a loaded model", back(ids), model(ids))
    critic = value_head.ValueModel(QWEN3)
    critic.init_from_decoder(decoder(QWEN3, context).cpu())
    folder = context.folder / "critic"
    folder.mkdir()
    checkpoint.save_model(folder, critic)
    loaded = checkpoint.load_value_model(folder, context.device)
    with torch.no_grad():
        yield equal("values of a loaded critic", loaded.values(ids), critic.to(context.device).values(ids))


CHECKS = [
    Check("model: logits", "the model's logits aren't those of its architecture", _check_logits),
    Check("model: gradients", "training follows a wrong gradient", _check_gradients),
    Check("model: documents", "documents of one packed sequence attend to each other", _check_documents),
    Check("model: batch", "outputs depend on the other rows of the batch", _check_batch),
    Check("model: values", "reward models and critics compute wrong values", _check_values),
    Check("model: checkpoint", "a loaded checkpoint differs from the saved model", _check_files),
]
