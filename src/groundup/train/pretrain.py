"""The stage `pretrain`: a decoder learns to predict the next token of every document.

in:  rows of token ids (tokenize), the tokenizer
out: a checkpoint folder that transformers reads; loss and validation curves in metrics.jsonl
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from groundup.core.errors import DataError
from groundup.core.recipe import Recipe, Site
from groundup.core.slot import Slot
from groundup.core.stage import Artifact, Metrics, Work, stage
from groundup.model import scaling
from groundup.model.architectures import Architecture
from groundup.model.architectures.qwen3 import Qwen3
from groundup.model.checkpoint import save_model
from groundup.model.counts import parameters, training_flops_per_token
from groundup.model.decoder import Decoder
from groundup.model.losses import Kernel, chunk_with_gradient, cross_entropy
from groundup.parallel.hardware import (
    Hardware,
    Precision,
    choose,
    compiled,
    fit,
    matmul_rate,
    rows_per_micro_batch,
)
from groundup.tokens.loader import row_indices
from groundup.tokens.shards import Rows
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.loop import Probe, TrainResult, train
from groundup.train.optimizers import Optimizer
from groundup.train.optimizers.muon import Muon
from groundup.train.schedules import Kind, schedule_factor
from groundup.train.validate import TokenBatch, bits_per_byte, token_batch


class Pretrain(Recipe):
    """What is trained, on how much, and how. 0 = by the rules of `model/scaling.py`."""

    depth: int = Field(default=4, ge=1, le=200, description="number of layers; width and more follow from it")
    architecture: Annotated[Architecture, Slot("groundup.model.architectures")] = Qwen3()
    optimizer: Annotated[Optimizer, Slot("groundup.train.optimizers")] = Muon()
    schedule: Kind = "linear"
    warmup: float = Field(default=0.02, ge=0, le=1, description="share of the steps in which the rate rises")
    decay: float = Field(default=0.4, ge=0, le=1, description="wsd: share of the steps in which it falls")
    final: float = Field(default=0.0, ge=0, le=1, description="where the rate ends, as a share of its peak")
    tokens: int = Field(
        default=0, ge=0, description="tokens to learn from; 0 = 20 per parameter of the layers"
    )
    max_epochs: float = Field(
        default=8, gt=0, description="stop earlier rather than read the data more often"
    )
    batch_tokens: int = Field(default=0, ge=0, description="tokens per step; 0 = 512 x depth^2")
    grad_clip: float = Field(default=1.0, ge=0, description="largest gradient norm; 0 = any")
    precision: Precision = Field(
        default="auto", description="auto = bf16 where the hardware has it, else fp32"
    )
    seed: int = 0
    validate_every: int = Field(default=50, ge=1, description="steps between two validations")
    validation_rows: int = Field(default=256, ge=1, description="most rows scored at the end")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self.architecture.config(self.depth, vocab_size=64, max_seq_len=64)
        return self

    def resolved(self) -> "Pretrain":
        """The same recipe with every derived value written out."""
        config = self.architecture.config(self.depth, vocab_size=64, max_seq_len=64)
        known = type(self.architecture).model_fields
        numbers = {name: getattr(config, name) for name in ("d_model", "n_heads", "n_kv_heads", "d_ff")}
        numbers = {name: value for name, value in numbers.items() if name in known}
        return self.model_copy(
            update={
                "architecture": self.architecture.model_copy(update=numbers),
                "optimizer": self.optimizer.resolved(config.d_model),
                "tokens": self.tokens or scaling.horizon_tokens(config),
                "batch_tokens": self.batch_tokens or scaling.batch_tokens(self.depth),
            }
        )


@dataclass(frozen=True)
class _Plan:
    """The recipe's numbers on this data and site."""

    seq_len: int
    batch_rows: int
    micro_rows: int
    steps: int
    warmup_steps: int


@stage(version=1)
def pretrain(recipe: Pretrain, site: Site, out: Work, tokens: Artifact, tokenizer: Artifact) -> Metrics:
    """Train a decoder from noise; see Pretrain for the choices."""
    recipe = recipe.resolved()
    vocabulary = Tokenizer.load(tokenizer.path)
    rows, held_out = Rows(tokens.path / "train.npy"), Rows(tokens.path / "validation.npy")
    hardware = choose(site, recipe.precision)
    plan = _plan(recipe, site, rows, hardware)
    config = recipe.architecture.config(recipe.depth, vocabulary.vocab_size, plan.seq_len)
    model = Decoder(config)
    model.init_weights(recipe.seed)
    fit(model, hardware)
    size = parameters(config)
    out.say(f"{size:,} parameters, {plan.steps:,} steps of {plan.batch_rows * plan.seq_len:,} tokens")
    out.say(hardware.reason + (" (the first step takes up to a minute)" if hardware.can_compile else ""))

    rates = [matmul_rate(hardware)]
    result = train(
        model=model,
        batches=_batches(recipe, plan, rows, vocabulary, hardware),
        loss=_loss(compiled(chunk_with_gradient, hardware)),
        optimizer=recipe.optimizer.build(model.named_parameters()),
        schedule=lambda step: schedule_factor(
            recipe.schedule, step, plan.steps, plan.warmup_steps, recipe.final, recipe.decay
        ),
        steps=plan.steps,
        out=out,
        site=site,
        label="pretrain",
        tokens_per_step=plan.batch_rows * plan.seq_len,
        grad_clip=recipe.grad_clip,
        probes=[Probe(recipe.validate_every, _probe(model, held_out, vocabulary, hardware, rates))],
    )
    rates.append(matmul_rate(hardware))
    save_model(out.path, model, vocabulary)
    flops = training_flops_per_token(config, plan.seq_len)
    return {
        "parameters": size,
        "tokens": result.steps * plan.batch_rows * plan.seq_len,
        "val_bpb": _score(model, held_out, vocabulary, recipe.validation_rows),
        "compiled": hardware.can_compile,
        "precision": hardware.precision,
        "device": str(hardware.device),
    } | _speed(result, flops, sum(rates) / len(rates))


def _plan(recipe: Pretrain, site: Site, rows: Rows, hardware: Hardware) -> _Plan:
    if len(rows) == 0:
        raise DataError("pretrain: there is no row to train on; the documents are too few or all held out")
    seq_len = rows.width - 1
    batch_rows = max(1, min(recipe.batch_tokens // seq_len, len(rows)))
    micro_rows = rows_per_micro_batch(site, seq_len, batch_rows, hardware.device)
    budget = min(recipe.tokens, int(recipe.max_epochs * len(rows) * seq_len))
    steps = max(1, budget // (batch_rows * seq_len))
    return _Plan(seq_len, batch_rows, micro_rows, steps, round(recipe.warmup * steps))


def _batches(
    recipe: Pretrain, plan: _Plan, rows: Rows, tokenizer: Tokenizer, hardware: Hardware
) -> Callable[[int], list[TokenBatch]]:
    """step -> its micro-batches, their weights divided by the weight of the whole step."""

    def batches(step: int) -> list[TokenBatch]:
        chosen = rows[row_indices(len(rows), plan.batch_rows, step, recipe.seed)]
        whole = token_batch(chosen, tokenizer, hardware.device)
        weights = whole.weights / whole.weights.sum().clamp(min=1)
        tensors = (whole.ids, whole.targets, whole.segments, weights)
        parts = (torch.split(tensor, plan.micro_rows) for tensor in tensors)
        return [TokenBatch(*part) for part in zip(*parts, strict=True)]

    return batches


def _loss(kernel: Kernel) -> Callable[[Any, TokenBatch], tuple[Tensor, dict[str, Tensor | float]]]:
    def loss(model: Decoder, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor | float]]:
        hidden = model.hidden(batch.ids, batch.segments).flatten(0, 1)
        targets, weights = batch.targets.flatten(), batch.weights.flatten()
        cap = model.config.logit_softcap
        return cross_entropy(hidden, model.head_weight, targets, weights, kernel, cap)[0], {}

    return loss


def _probe(
    model: Decoder, held_out: Rows, tokenizer: Tokenizer, hardware: Hardware, rates: list[float]
) -> Callable[[int], dict[str, float]]:
    """Validation on a few rows; and the machine's rate again, which changes with who else works on it."""

    def probe(step: int) -> dict[str, float]:
        rates.append(matmul_rate(hardware, seconds=0.2))
        score = _score(model, held_out, tokenizer, 16)
        return {} if score is None else {"val_bpb": score}

    return probe


def _score(model: Decoder, held_out: Rows, tokenizer: Tokenizer, limit: int) -> float | None:
    return bits_per_byte(model, held_out, tokenizer, limit) if len(held_out) else None


def _speed(result: TrainResult, flops_per_token: float, rate: float) -> Metrics:
    """Speed over the timed steps, and what share of the machine's own matrix-product rate it is."""
    return {
        "steps": result.steps,
        "skipped_steps": result.skipped_steps,
        "seconds": result.seconds,
        "tokens_per_second": result.tokens_per_second,
        "flops_utilization": flops_per_token * result.tokens_per_second / rate,
        "flops_per_token": flops_per_token,
        "matmul_tflops": rate / 1e12,
    }
