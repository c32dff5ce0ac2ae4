"""The stage `pretrain`: trains a decoder to predict the next token of every document.

in:  rows of token ids (tokenize), the tokenizer
out: a checkpoint folder that transformers reads; loss and validation curves in metrics.jsonl
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, cast

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from groundup.core.digests import UNCACHED, DigestCache
from groundup.core.errors import DataError, GroundupError
from groundup.core.recipe import Recipe
from groundup.core.registry import Plugin
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, Metrics, StageContext, stage
from groundup.model import scaling
from groundup.model.architectures import Architecture
from groundup.model.architectures.qwen3 import Qwen3
from groundup.model.checkpoint import read_config
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.model.flops import parameters, training_flops_per_token
from groundup.model.losses import chunk_with_gradient
from groundup.parallel.context import ParallelContext, current_context
from groundup.parallel.engine import EngineSpec, TrainEngine
from groundup.parallel.engines.native import NativeEngine
from groundup.parallel.hardware import (
    Hardware,
    Precision,
    choose_hardware,
    compiled,
    micro_batch_rows,
)
from groundup.parallel.layout import resolve_layout
from groundup.parallel.memory_estimate import MemoryParts, memory_parts
from groundup.parallel.shard import InitTensor
from groundup.tokens.loader import sample_indices
from groundup.tokens.shards import PackedDataset
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.batches import document_ids, step_batches, token_batch
from groundup.train.budget import TrainingBudget, training_budget
from groundup.train.init_from import (
    resume_optimizer,
    save_checkpoint,
    save_stable,
    start_config,
    start_digest,
    start_optimizer,
    start_weights,
)
from groundup.train.loop import Probe, TrainSpec, train
from groundup.train.moe_balance import ExpertBalancer
from groundup.train.monitor import ModelMonitor, Monitor
from groundup.train.optimizers import Optimizer
from groundup.train.optimizers.muon import Muon
from groundup.train.pretrain_loss import pretraining_loss
from groundup.train.schedules import ScheduleName, schedule_factor
from groundup.train.stable_checkpoint import stable_checkpoint_probe, stable_steps
from groundup.train.utilization import MachineRate, throughput
from groundup.train.validate import held_out_bpb, induction_metrics, validation_probe


class Pretrain(Recipe):
    """Model, data budget and optimization of pretraining. 0 = derived by the rules of `model/scaling.py`."""

    not_identity: ClassVar[frozenset[str]] = frozenset({"start"})

    start: str = Field(
        default="",
        description="folder of a checkpoint to continue from, which decides depth and architecture; "
        "empty = random initialisation",
    )
    depth: int = Field(
        default=4, ge=1, le=200, description="number of layers; width and other sizes are derived from it"
    )
    architecture: Annotated[Architecture, Plugin("groundup.model.architectures")] = Qwen3()
    init: Literal["standard", "induction"] = Field(
        default="standard",
        description="initial weights: standard = random; induction = random with an induction circuit in the first two "
        "layers, which is held through all training (docs/concepts/induction.md)",
    )
    optimizer: Annotated[Optimizer, Plugin("groundup.train.optimizers")] = Muon()
    schedule: ScheduleName = Field(default="linear", description="learning-rate schedule")
    warmup_fraction: float = Field(
        default=0.02, ge=0, le=1, description="fraction of the steps with a rising learning rate"
    )
    decay_fraction: float = Field(
        default=0.4, ge=0, le=1, description="wsd: fraction of the steps with a falling learning rate"
    )
    min_lr_ratio: float = Field(
        default=0.0, ge=0, le=1, description="final learning rate as a fraction of the peak"
    )
    tokens: int = Field(default=0, ge=0, description="training tokens; 0 = 20 per parameter of the layers")
    max_epochs: float = Field(
        default=8, gt=0, description="maximum passes over the data; with less data, `tokens` is reduced"
    )
    batch_tokens: int = Field(default=0, ge=0, description="tokens per step; 0 = 512 x depth^2")
    grad_clip: float = Field(
        default=1.0, ge=0, description="maximum norm of a step's gradient; 0 = no clipping"
    )
    precision: Precision = Field(
        default="auto",
        description="dtype of the arithmetic; auto = bf16 where the hardware has it, else fp32",
    )
    seed: int = 0
    validate_every: int = Field(default=50, ge=1, description="steps between two validations")
    validation_rows: int = Field(default=256, ge=1, description="maximum packed sequences scored at the end")

    def without_effect(self) -> dict[str, str]:
        """See `Strict`."""
        unused = {} if self.schedule == "wsd" else {"decay_fraction": f'schedule = "{self.schedule}"'}
        if self.schedule == "constant":
            unused["min_lr_ratio"] = 'schedule = "constant"'
        if self.start:
            unused |= dict.fromkeys(("depth", "architecture"), "the checkpoint in start decides")
        elif getattr(self.architecture, "tie_embeddings", False):
            unused["optimizer.head"] = "architecture.tie_embeddings = true: there is no matrix of the head"
        return unused

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.start and self.init != "standard":
            raise ValueError(
                f'init = "{self.init}" has no effect with start: the checkpoint has its weights. Leave out one of both'
            )
        if self.schedule == "wsd" and self.warmup_fraction + self.decay_fraction > 1:
            raise ValueError('schedule = "wsd": warmup_fraction + decay_fraction must be at most 1')
        self.decoder_config(vocab_size=64, max_seq_len=64)
        return self

    def decoder_config(self, vocab_size: int, max_seq_len: int) -> DecoderConfig:
        """The decoder's config from random initialisation."""
        config = self.architecture.config(self.depth, vocab_size, max_seq_len)
        return replace(config, induction=self.init == "induction")

    def resolved(self) -> "Pretrain":
        """The same recipe with every value that can be derived from the recipe alone."""
        config = self.shape()
        if self.start:
            return self._resolved(config)
        known = type(self.architecture).model_fields
        numbers = {name: getattr(config, name) for name in ("d_model", "n_heads", "n_kv_heads", "d_ff")}
        numbers = {name: value for name, value in numbers.items() if name in known}
        architecture = self.architecture.model_copy(update=numbers)
        return self.model_copy(update={"architecture": architecture})._resolved(config)

    def shape(self) -> DecoderConfig:
        """The decoder's config that the recipe decides: all but vocabulary and sequence length."""
        if self.start:
            return read_config(Path(self.start))
        return self.decoder_config(vocab_size=64, max_seq_len=64)

    def _resolved(self, config: DecoderConfig) -> "Pretrain":
        tokens = self.tokens or scaling.horizon_tokens(config)
        batch_tokens = self.batch_tokens or scaling.batch_tokens(config.n_layers)
        derived: dict[str, Any] = {"depth": config.n_layers, "tokens": tokens, "batch_tokens": batch_tokens}
        if not self.start:
            recipe = self.model_copy(update=derived)
            derived["optimizer"] = recipe.optimizer_for(config.d_model, batch_tokens, tokens)
        return self.model_copy(update=derived)

    def optimizer_for(self, d_model: int, batch_tokens: int, tokens: int) -> Optimizer:
        """The optimizer with its rates: of an annealed checkpoint its own, else by the rules for these numbers."""
        if not self.start:
            own = self.optimizer.by_rule(d_model, batch_tokens=self.batch_tokens, tokens=self.tokens)
            return own.resolved(d_model, batch_tokens=batch_tokens, tokens=tokens)
        return start_optimizer(Path(self.start), self.optimizer).resolved(d_model, batch_tokens=batch_tokens)


@dataclass(frozen=True)
class _Plan:
    """The recipe's numbers for this data and runtime."""

    seq_len: int
    batch_rows: int
    micro_rows: int
    budget: TrainingBudget
    warmup_steps: int
    stable_steps: int
    """steps before the learning rate falls, with the schedule wsd"""

    @property
    def steps(self) -> int:
        return self.budget.steps

    @property
    def tokens_per_step(self) -> int:
        return self.batch_rows * self.seq_len


def external_digest(recipe: Pretrain, digests: DigestCache = UNCACHED) -> dict[str, str] | None:
    """Digest of the checkpoint to start from."""
    return start_digest(Path(recipe.start), digests) if recipe.start else None


@stage(
    version=2,
    kind="policy",
    external_digest=external_digest,
    ranks=True,
    headline=(
        "parameters",
        "tokens",
        "epochs",
        "unread_share",
        "tokens_per_second",
        "flops_utilization",
        "val_bpb",
    ),
)
def pretrain(
    recipe: Pretrain, runtime: Runtime, context: StageContext, tokens: Artifact, tokenizer: Artifact
) -> Metrics:
    """Train a decoder from random initialisation or from a checkpoint."""
    recipe = recipe.resolved()
    vocabulary = Tokenizer.load(tokenizer.path)
    rows, held_out = PackedDataset(tokens.path / "train.npy"), PackedDataset(tokens.path / "validation.npy")
    hardware = choose_hardware(runtime, recipe.precision)
    config = _config(recipe, rows.width - 1, vocabulary)
    layout = resolve_layout(runtime, config, _batch_rows(recipe, rows), rows.width - 1, hardware.device)
    parallel = current_context(layout, hardware.device)
    model, init_tensor = _decoder(recipe, config, tokenizer.path, parallel)
    plan = _plan(recipe, runtime, rows, hardware, config, parallel, memory_parts(layout, parallel.size))
    _announce(context, recipe, config, plan, hardware)
    rate, flops = MachineRate(hardware, parallel), training_flops_per_token(config, plan.seq_len)
    optimizer = recipe.optimizer_for(config.d_model, plan.tokens_per_step, plan.steps * plan.tokens_per_step)
    loss = pretraining_loss(compiled(chunk_with_gradient, hardware))
    engine = runtime.engine.prepare(
        EngineSpec(model, init_tensor, hardware, parallel, layout, optimizer.build, loss, recipe.grad_clip)
    )
    rows_read = resume_optimizer(Path(recipe.start), engine, optimizer, context.info) if recipe.start else 0
    score = partial(held_out_bpb, engine, held_out, vocabulary, parallel)
    rows_of = _order(recipe, plan, len(rows), rows_read)
    metrics: Metrics = induction_metrics(engine, vocabulary, "_before")
    read = rows_read + plan.stable_steps * plan.batch_rows
    save = partial(save_stable, context, engine, config, vocabulary, optimizer, read, parallel)
    spec = TrainSpec(
        label="pretrain",
        engine=engine,
        batches=partial(step_batches, rows, rows_of, vocabulary, plan.micro_rows, parallel),
        schedule=_schedule(recipe, plan),
        steps=plan.steps,
        context=context,
        runtime=runtime,
        parallel=parallel,
        tokens_per_step=plan.tokens_per_step,
        prefetch=True,
        detect_spikes=True,
        probes=[
            Probe(recipe.validate_every, validation_probe(score, rate)),
            *stable_checkpoint_probe(recipe.schedule, plan.stable_steps, plan.steps, save),
        ],
        monitor=_monitor(engine, rows, held_out, vocabulary, flops * plan.tokens_per_step, rate, parallel),
        document_ids=document_ids(rows_of, tokens.path / "train_spans.parquet"),
        environment=hardware.numerics(),
    )
    result = train(spec)
    rate.measure()
    save_checkpoint(context.path, engine, config, vocabulary, parallel)
    metrics |= induction_metrics(engine, vocabulary, "")
    metrics |= {
        "parameters": parameters(config),
        "decoder": config.to_json(),
        "tokens": result.steps * plan.tokens_per_step,
        **plan.budget.metrics(),
        "val_bpb": score(recipe.validation_rows),
    }
    return metrics | throughput(result, flops, rate) | _precision_metrics(hardware)


def _precision_metrics(hardware: Hardware) -> Metrics:
    return {
        "compiled": hardware.can_compile,
        "precision": hardware.precision,
        "device": str(hardware.device),
    }


def _announce(
    context: StageContext, recipe: Pretrain, config: DecoderConfig, plan: _Plan, hardware: Hardware
) -> None:
    size = f"{parameters(config):,} parameters, {plan.steps:,} steps of {plan.tokens_per_step:,} tokens"
    context.info(size)
    context.info(plan.budget.sentence("training sequences", getattr(recipe, plan.budget.ended_by)))
    context.info(hardware.reason + (" (the first step takes up to a minute)" if hardware.can_compile else ""))


def _config(recipe: Pretrain, seq_len: int, vocabulary: Tokenizer) -> DecoderConfig:
    if recipe.start:
        return start_config(Path(recipe.start), seq_len)
    return recipe.decoder_config(vocabulary.vocab_size, seq_len)


def _decoder(
    recipe: Pretrain, config: DecoderConfig, tokenizer: Path, parallel: ParallelContext
) -> tuple[Decoder, InitTensor]:
    """The model and its initial weights; with several ranks, which may not have room for them, on the meta device."""
    with torch.device("meta"):
        blank = Decoder(config)
    start_tensors = start_weights(Path(recipe.start), config, tokenizer) if recipe.start else None

    def init_tensor(name: str, shape: torch.Size) -> Tensor:
        return (
            blank.init_tensor(name, shape, recipe.seed)
            if start_tensors is None
            else start_tensors[name].float()
        )

    if parallel.mesh is not None:
        return blank, init_tensor
    model = Decoder(config)
    for name, value in model.state_dict().items():
        value.copy_(init_tensor(name, value.shape))
    return model, init_tensor


def _plan(
    recipe: Pretrain,
    runtime: Runtime,
    rows: PackedDataset,
    hardware: Hardware,
    config: DecoderConfig,
    parallel: ParallelContext,
    parts: MemoryParts,
) -> _Plan:
    seq_len, batch_rows = rows.width - 1, _batch_rows(recipe, rows)
    if batch_rows % parallel.dp_size:
        raise GroundupError(
            f"pretrain.batch_tokens = {recipe.batch_tokens} is {batch_rows} rows of {seq_len} tokens a step, which "
            f"{parallel.dp_size} data-parallel ranks can't divide. Make it a multiple of {parallel.dp_size * seq_len}"
        )
    rows_each = batch_rows // parallel.dp_size
    if rows_each % parallel.pipeline:
        raise GroundupError(
            f"pretrain.batch_tokens = {recipe.batch_tokens} is {rows_each} rows of {seq_len} tokens for each pipeline, "
            f"whose {parallel.pipeline} ranks each need a micro-batch. Make it a multiple of "
            f"{parallel.dp_size * parallel.pipeline * seq_len}"
        )
    local_positions = len(range(seq_len)[parallel.positions(seq_len)])
    micro_rows = micro_batch_rows(
        runtime, config, local_positions, rows_each // parallel.pipeline, hardware.device, parts
    )
    budget = pretrain_budget(recipe, len(rows), batch_rows, seq_len)
    warmup = round(recipe.warmup_fraction * budget.steps)
    stable = stable_steps(budget.steps, recipe.decay_fraction)
    return _Plan(seq_len, batch_rows, micro_rows, budget, warmup, stable)


def pretrain_budget(recipe: Pretrain, rows: int, batch_rows: int, seq_len: int) -> TrainingBudget:
    """What a training with the (resolved) recipe reads of `rows` packed sequences."""
    limits = {"tokens": recipe.tokens, "max_epochs": int(recipe.max_epochs * rows * seq_len)}
    per_step = batch_rows * seq_len
    return training_budget(rows, batch_rows, {key: tokens // per_step for key, tokens in limits.items()})


def _batch_rows(recipe: Pretrain, rows: PackedDataset) -> int:
    """Rows of a step, on all ranks."""
    if len(rows) == 0:
        raise DataError("pretrain: there is no row to train on; the documents are too few or all held out")
    return max(1, min(recipe.batch_tokens // (rows.width - 1), len(rows)))


def _schedule(recipe: Pretrain, plan: _Plan) -> Callable[[int], float]:
    return lambda step: schedule_factor(
        recipe.schedule, step, plan.steps, plan.warmup_steps, recipe.min_lr_ratio, recipe.decay_fraction
    )


def _order(recipe: Pretrain, plan: _Plan, n_rows: int, rows_read: int) -> Callable[[int], np.ndarray]:
    """step -> the rows that it reads. An annealing run continues after the rows that its checkpoint has read."""
    first = rows_read // plan.batch_rows
    return lambda step: sample_indices(n_rows, plan.batch_rows, first + step, recipe.seed)


def _monitor(
    engine: TrainEngine,
    rows: PackedDataset,
    held_out: PackedDataset,
    tokenizer: Tokenizer,
    flops_per_step: float,
    rate: MachineRate,
    parallel: ParallelContext,
) -> Monitor | None:
    """The monitor of a model whose parameters are on this rank; None for other engines."""
    if not isinstance(engine, NativeEngine):
        return None
    model = cast(Decoder, engine.model)
    # Attention logits can't be recorded where this rank has a part of the layers.
    probed = held_out if len(held_out) else rows
    probe = token_batch(probed[:1], tokenizer, engine.device) if parallel.pipeline == 1 else None
    monitor = ModelMonitor(model, probe=probe, flops_per_step=flops_per_step, rate=lambda: rate.latest)
    return ExpertBalancer(model, model.config, monitor, parallel) if model.config.moe else monitor
