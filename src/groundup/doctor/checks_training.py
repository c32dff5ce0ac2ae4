"""Checks of training steps: optimizers, schedules, the loop, pretraining, resuming, compiled layers.

in:  a `CheckContext`
out: differences
"""

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from groundup.core.progress import Reporter
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, StageContext
from groundup.doctor import formulas, reference
from groundup.doctor.check import Check, CheckContext, Difference, compare, equal, normal, threads
from groundup.doctor.checks_model import compare_gradients, roundings
from groundup.doctor.toy_models import (
    LLAMA,
    QWEN3,
    decoder,
    document_segments,
    random_ids,
    toy_tokenizer,
    weights_of,
)
from groundup.model import checkpoint, losses
from groundup.model.architectures.llama import Llama
from groundup.model.decoder import Decoder
from groundup.parallel import hardware
from groundup.parallel.cpu import MIN_BLOCK
from groundup.parallel.engines.native import NativeEngine
from groundup.tokens.tokenizer import Tokenizer
from groundup.train import loop, pretrain, schedules
from groundup.train.optimizers import adamw, muon

NAMES = {
    "model.layers.0.mlp.up_proj.weight": (12, 20),
    "model.layers.0.self_attn.q_proj.weight": (16, 16),
    "model.embed_tokens.weight": (30, 16),
    "lm_head.weight": (30, 16),
    "model.norm.weight": (16,),
}
"""Parameters of every optimizer group, which the names determine."""
HIDDEN = list(NAMES)[:2]
STEPS = 4
ROUNDINGS = 16
"""Consecutive fp32 roundings of a few optimizer steps."""
SMALL = Llama(d_model=32, n_heads=2, d_ff=48, logit_softcap=0.2)
STRETCH = 0.35
"""Largest deviation from 1 of the singular values after a few Newton-Schulz iterations (Jordan et al. 2024)."""


def runtime(context: CheckContext) -> Runtime:
    """Runtime of the checks: micro-batch 1, eager, one thread."""
    device: Any = context.device.type
    return Runtime(device=device, threads=1, compile="off", micro_batch=1)


def _parameters(context: CheckContext) -> dict[str, nn.Parameter]:
    tensors = (normal(seed, *shape) for seed, shape in enumerate(NAMES.values(), start=1))
    return {name: nn.Parameter(x.float().to(context.device)) for name, x in zip(NAMES, tensors, strict=True)}


def _gradients(name: str) -> list[Tensor]:
    """One gradient per step; those of hidden matrices have singular values between 1/2 and 1."""
    seed = 10 * (1 + list(NAMES).index(name))
    noise = [normal(seed + step, *NAMES[name]) for step in range(STEPS)]
    if name not in HIDDEN:
        return noise
    factors = [torch.linalg.svd(one, full_matrices=False) for one in noise]
    return [u * torch.linspace(0.5, 1, len(s), dtype=torch.float64) @ v for u, s, v in factors]


def _stepped(
    optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter], steps: int
) -> dict[str, list[Tensor]]:
    """Each parameter before the first step and after every step."""
    history = {name: [parameter.detach().clone()] for name, parameter in parameters.items()}
    for step in range(steps):
        for name, parameter in parameters.items():
            parameter.grad = _gradients(name)[step].to(parameter)
        optimizer.step()
        for name, parameter in parameters.items():
            history[name].append(parameter.detach().clone())
    return history


def _check_adamw(context: CheckContext) -> Iterator[Difference]:
    """AdamW step by step, with bias correction; weight decay on hidden matrices only."""
    recipe = adamw.AdamW(lr=0.03, beta1=0.8, beta2=0.9, eps=1e-3, weight_decay=0.2)
    parameters = _parameters(context)
    history = _stepped(recipe.build(parameters.items()), parameters, STEPS)
    for name, tensors in history.items():
        decay = 0.2 if name in HIDDEN else 0.0
        for step in range(1, STEPS + 1):
            start, gradients = tensors[0].double().cpu(), _gradients(name)[:step]
            want = formulas.adamw(start, gradients, 0.03, (0.8, 0.9), 1e-3, decay)
            yield compare(f"AdamW: {name} after {step} steps", tensors[step], want, ROUNDINGS)


def _check_muon(context: CheckContext) -> Iterator[Difference]:
    """Hidden matrices move along the orthogonal factor of their momentum; AdamW updates the others."""
    rate, memory = 0.02, 0.9
    recipe = muon.Muon(
        lr=rate, momentum=memory, weight_decay=0.0, adam_lr=0.03, adam_beta1=0.8, adam_beta2=0.9
    )
    parameters = _parameters(context)
    history = _stepped(recipe.build(parameters.items()), parameters, STEPS)
    for name in HIDDEN:
        momentum = torch.zeros(NAMES[name], dtype=torch.float64)
        for step, gradient in enumerate(_gradients(name)):
            momentum = memory * momentum + (1 - memory) * gradient
            u, _, v = torch.linalg.svd(memory * momentum + (1 - memory) * gradient, full_matrices=False)
            before, after = (history[name][at].double().cpu() for at in (step, step + 1))
            rotated = u.T @ ((before - after) / (0.2 * rate * max(NAMES[name]) ** 0.5)) @ v.T
            error = float((rotated - torch.eye(len(rotated), dtype=torch.float64)).abs().max())
            yield Difference(f"Muon: {name}, step {step + 1} is orthogonal", error, STRETCH)
    for name in NAMES.keys() - set(HIDDEN):
        start, gradients = history[name][0].double().cpu(), _gradients(name)
        want = formulas.adamw(start, gradients, 0.03, (0.8, 0.9), 1e-8, 0.0)
        yield compare(f"Muon's AdamW: {name}", history[name][-1], want, ROUNDINGS)


def _check_schedules(context: CheckContext) -> Iterator[Difference]:
    """Every learning rate factor of a run: warmup, peak, decay, final value."""
    for warmup, steps, final in ((0, 20, 0.0), (5, 40, 0.1), (10, 100, 0.0)):
        at = np.arange(warmup, steps + 1)
        share = (at - warmup) / (steps - warmup)
        falls = {
            "constant": np.ones(len(at)),
            "linear": np.interp(at, [warmup, steps], [1, final]),
            "cosine": final + (1 - final) * np.cos(np.pi / 2 * share) ** 2,
            "wsd": np.interp(at, [0, steps * 0.7, steps], [1, 1, final]),
        }
        rise = np.arange(1, warmup + 1) / (warmup + 1)
        for kind, fall in falls.items():
            factors = [
                schedules.schedule_factor(kind, step, steps, warmup, final, 0.3)  # type: ignore[arg-type]
                for step in range(steps + 1)
            ]
            wanted = torch.from_numpy(np.concatenate((rise, fall)))
            yield compare(f"{kind}, {steps} steps, warmup {warmup}", torch.tensor(factors), wanted, 4)


def _check_loop(context: CheckContext) -> Iterator[Difference]:
    """SGD through the training loop: schedule, gradient clipping, micro-batches of uneven size."""
    ids, weights = random_ids(5, 17), (document_segments(5, 16) >= 0).float()
    for clip in (0.0, 0.05):
        model = decoder(LLAMA, context)
        plain = weights_of(model)
        for factor in (1.0, 0.5):
            _descend(plain, ids, weights, 0.1 * factor, clip)
        parts = [torch.split(x, [1, 3, 1]) for x in (ids, weights / weights.sum())]
        micro_batches = list(zip(*parts, strict=True))
        loop.train(
            loop.TrainSpec(
                label="train",
                engine=NativeEngine(model, torch.optim.SGD(model.parameters(), lr=0.1), _loss, clip),
                batches=lambda step, step_batches=micro_batches: step_batches,  # type: ignore[misc]
                schedule=lambda step: (1.0, 0.5)[step],
                steps=2,
                context=StageContext(context.folder / f"clip {clip}", Reporter(quiet=True)),
                runtime=runtime(context),
            )
        )
        for name, parameter in model.named_parameters():
            allowed = 4 * roundings(LLAMA)  # two steps, forward and backward
            yield compare(f"two steps, clip {clip}: {name}", parameter, plain[name], allowed)


def _loss(model: Decoder, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Any]]:
    """Weighted cross-entropy of the next tokens."""
    device = model.head_weight.device
    ids, weights = batch[0].to(device), batch[1].to(device)
    hidden, targets = model.hidden(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()
    return losses.cross_entropy(hidden, model.head_weight, targets, weights.flatten())[0], {}


def _descend(plain: dict[str, Tensor], ids: Tensor, weights: Tensor, rate: float, clip: float) -> None:
    """One SGD step on the reference's weights, over the whole batch."""
    whole = [[0] * (ids.shape[1] - 1)] * len(ids)
    logits = reference.logits(plain, LLAMA, ids[:, :-1], whole).flatten(0, 1)
    loss = formulas.cross_entropy(
        logits, ids[:, 1:].flatten(), weights.flatten().double() / weights.double().sum()
    )
    gradients = torch.autograd.grad(loss, list(plain.values()))
    norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients))
    scale = clip / norm if clip and norm > clip else 1.0
    with torch.no_grad():
        for parameter, gradient in zip(plain.values(), gradients, strict=True):
            parameter -= rate * scale * gradient


def _rows(tokenizer: Tokenizer) -> np.ndarray:
    """Four packed sequences of documents and uneven padding."""
    noise, rows = np.random.default_rng(0), np.full((4, 33), tokenizer.pad)
    for number, row in enumerate(rows):
        borders = [0, 9 + number, 20, 33 - 4 * number]
        for start, end in pairwise(borders):
            row[start:end] = noise.integers(0, 250, end - start)
            row[start], row[end - 1] = tokenizer.bos, tokenizer.eos
    return rows


def _plain_step(
    plain: dict[str, Tensor], model: Decoder, rows: np.ndarray, tokenizer: Tokenizer
) -> tuple[Tensor, int]:
    """Sum of -log p over the targets in the loss, and their number."""
    ids = torch.from_numpy(rows.astype(np.int64))
    segments = []
    for row in ids.tolist():
        document = np.cumsum([token == tokenizer.bos for token in row])
        segments.append(
            [-1 if token == tokenizer.pad else int(d) for token, d in zip(row, document, strict=True)]
        )
    counts = (ids[:, 1:] != tokenizer.pad) & (ids[:, 1:] != tokenizer.bos)
    logits = reference.logits(plain, model.config, ids[:, :-1], [row[:-1] for row in segments]).flatten(0, 1)
    return formulas.cross_entropy(logits, ids[:, 1:].flatten(), counts.flatten().double()), int(counts.sum())


def _check_pretrain(context: CheckContext) -> Iterator[Difference]:
    """The stage `pretrain` for one step of four micro-batches: loss, gradient norm and validation."""
    tokenizer = toy_tokenizer()
    tokens, held = context.folder / "tokens", context.folder / "tokenizer"
    tokens.mkdir()
    held.mkdir()
    rows = _rows(tokenizer)
    np.save(tokens / "train.npy", rows.astype(np.uint16))
    np.save(tokens / "validation.npy", rows[:2].astype(np.uint16))
    tokenizer.save(held)
    recipe = pretrain.Pretrain(
        depth=1,
        architecture=SMALL,
        optimizer=adamw.AdamW(lr=1e-3),
        tokens=128,
        batch_tokens=128,
        precision="fp32",
    )
    stage_context = StageContext(context.folder / "pretrain", Reporter(quiet=True))
    inputs = [Artifact(folder, "0" * 12, folder.name, "token_dataset") for folder in (tokens, held)]
    metrics = pretrain.pretrain(recipe, runtime(context), stage_context, *inputs)
    lines = [json.loads(line) for line in stage_context.file("metrics.jsonl").read_text().splitlines()]
    logged = next(line for line in lines if "grad_norm" in line)
    stage_context.close()
    after = checkpoint.load_decoder(stage_context.path)
    before = Decoder(after.config)
    before.init_weights(recipe.seed)
    plain = weights_of(before)
    total, count = _plain_step(plain, before, rows, tokenizer)
    gradients = torch.autograd.grad(total / count, list(plain.values()))
    norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
    allowed = 2 * roundings(after.config)
    yield compare("loss of the first step", torch.tensor(logged["loss"]), total / count, allowed)
    yield compare("gradient norm of the first step", torch.tensor(logged["grad_norm"]), norm, allowed)
    with torch.no_grad():
        scored = _plain_step(weights_of(after), after, rows[:2], tokenizer)[0]
    size = sum(len(tokenizer.token_bytes(int(token))) for row in rows[:2] for token in row[1:])
    bits = scored / math.log(2) / size
    yield compare("validation, bits per byte", torch.tensor(metrics["val_bpb"]), bits, allowed)


class _Interrupted(Exception):
    """Interrupts a training."""


def _check_resume(context: CheckContext) -> Iterator[Difference]:
    """A training that is interrupted and resumed ends in the same bits."""
    whole = _trained(context, context.folder / "whole")
    with contextlib.suppress(_Interrupted):
        _trained(context, context.folder / "parts", stop_at=2)
    states = list((context.folder / "parts").rglob("step-*"))
    yield equal("a resume state was saved", bool(states), True)
    yield equal("weights after resuming", _trained(context, context.folder / "parts"), whole)


def _trained(context: CheckContext, folder: Path, stop_at: int = -1) -> Tensor:
    """All weights after three steps with momentum; `stop_at`: the step that is interrupted."""
    ids, weights = random_ids(2, 17), torch.full((2, 16), 1 / 32)
    model = decoder(LLAMA, context)

    def batches(step: int) -> list[tuple[Tensor, Tensor]]:
        if step == stop_at:
            raise _Interrupted
        return [(ids, weights * (1 + step))]

    optimizer = muon.Muon(lr=0.01, adam_lr=0.01).build(model.named_parameters())
    loop.train(
        loop.TrainSpec(
            label="train",
            engine=NativeEngine(model, optimizer, _loss, 1.0),
            batches=batches,
            schedule=lambda step: 1.0 - step / 4,
            steps=3,
            context=StageContext(folder, Reporter(quiet=True)),
            runtime=runtime(context).model_copy(update={"checkpoint_seconds": 1e-9}),
        )
    )
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def _check_compiled(context: CheckContext) -> Iterator[Difference]:
    """A model fitted to this hardware as in training: compiled where possible.

    One layer, since compiling takes the time and further layers use the same kernels. The sequences are long enough
    for two blocks of blockwise attention.
    """
    ids, segments = random_ids(2, 2 * MIN_BLOCK + 1), document_segments(2, 2 * MIN_BLOCK)
    targets, weights = ids[:, 1:].flatten(), (segments >= 0).flatten().float() / 100
    config = replace(QWEN3, n_layers=1, logit_softcap=4.0)
    plain = weights_of(decoder(config, context))
    logits = reference.logits(plain, config, ids[:, :-1], segments.tolist())
    want = formulas.cross_entropy(logits.flatten(0, 1), targets, weights.double())
    want.backward()  # type: ignore[no-untyped-call]
    model, dtype = decoder(config, context), context.hardware.dtype
    hardware.prepare_model(model, context.hardware)
    model.train()
    kernel = hardware.compiled(losses.chunk_with_gradient, context.hardware)
    for repetition in ("first", "second"):
        with threads(context.hardware.cores):
            hidden = model.hidden(ids[:, :-1].to(context.device), segments.to(context.device)).flatten(0, 1)
            there = (targets.to(context.device), weights.to(context.device))
            loss = losses.cross_entropy(hidden, model.head_weight, *there, kernel, config.logit_softcap)[0]
            model.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        yield compare(f"fitted model, {repetition} step: loss", loss, want, roundings(config, dtype), dtype)
        yield from compare_gradients(f"fitted model, {repetition} step", model, plain, dtype)


CHECKS = [
    Check("training: AdamW", "AdamW's updates or weight decay are wrong", _check_adamw),
    Check("training: Muon", "Muon's updates are wrong", _check_muon),
    Check("training: schedules", "the learning rate schedule is wrong", _check_schedules),
    Check("training: loop", "gradient accumulation, clipping or learning rate are wrong", _check_loop),
    Check(
        "training: pretraining",
        "pretraining optimizes or reports a wrong loss",
        _check_pretrain,
    ),
    Check("training: resume", "a resumed training differs from an uninterrupted one", _check_resume),
    Check(
        "training: this hardware",
        "compiled or low-precision steps on this hardware are wrong",
        _check_compiled,
        'Set runtime.compile = "off" or precision = "fp32", and run `groundup doctor` again',
    ),
]
