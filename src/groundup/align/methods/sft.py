"""Method: supervised fine-tuning. Questions with right answers -> a model that answers.

in:  a start policy, examples
out: the policy after training on the answers; held-out loss before and after

Ouyang et al. 2022 (arXiv:2203.02155), step 1. The loss is on the assistant's tokens alone, and every token of a
step weighs the same: the sum over its micro-batches is divided by the step's number of learnt tokens, not
averaged per conversation.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from groundup.align.data import PackedBatch, chosen_at, fill, pack, permutation
from groundup.align.methods import Method, MethodContext, Session
from groundup.core.atomic_io import write_json
from groundup.core.errors import DataError
from groundup.core.registry import Plugin
from groundup.core.stage import ArtifactKind, Metrics
from groundup.evaluate.tasks import Example
from groundup.model.checkpoint import load_decoder, save_model
from groundup.model.decoder import Decoder
from groundup.model.lora import Lora, attach, merge
from groundup.model.losses import chunk_with_gradient, cross_entropy
from groundup.parallel.hardware import choose_hardware, compiled, micro_batch_rows, prepare_model
from groundup.tokens.chat import RenderedChat, render
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.optimizers import Optimizer
from groundup.train.optimizers.muon import Muon

SHOWN = 8
"""Conversations written to `examples.json`."""


class Sft(Method):
    """Learn to answer from examples; the loss is on the answers alone."""

    inputs: ClassVar[Mapping[str, ArtifactKind]] = {"start": "policy"}
    output: ClassVar[ArtifactKind] = "policy"

    optimizer: Annotated[Optimizer, Plugin("groundup.train.optimizers")] = Muon(
        lr=0.005, adam_lr=2e-3, adam_beta1=0.9
    )
    batch_rows: int = Field(default=8, ge=1, description="rows of a step; a row is the model's context")
    epochs: float = Field(default=3.0, gt=0, description="how often every conversation is seen, at most")
    max_tokens: int = Field(default=600_000, ge=1, description="tokens trained on, padding included, at most")
    validation_tokens: int = Field(default=16_000, ge=1, description="held-out tokens for val_loss, at most")
    lora_rank: int = Field(
        default=0,
        ge=0,
        description="learn a change of this rank beside frozen weights; 0 = all weights learn",
    )

    def prepare(self, given: MethodContext) -> Session:
        """Render and pack the conversations."""
        return _Fine(self, given)


@dataclass(frozen=True)
class _Batch:
    """A micro-batch with the next token of each position, and its weight (0 or 1)."""

    packed: PackedBatch
    targets: Int[Tensor, "rows time"]
    weights: Float[Tensor, "rows time"]
    total: float = 1.0


class _Fine:
    """The session."""

    label = "sft"
    depends_on_weights = False
    boundary = 1

    def __init__(self, recipe: Sft, given: MethodContext) -> None:
        self.recipe, self.given = recipe, given
        self.hardware = choose_hardware(given.runtime, recipe.precision)
        self.model: Decoder = load_decoder(given.reads["start"], self.hardware.device, self.hardware.dtype)
        if recipe.lora_rank:
            attach(self.model, Lora(recipe.lora_rank, alpha=2.0 * recipe.lora_rank), recipe.seed)
        prepare_model(self.model, self.hardware)
        self.kernel = compiled(chunk_with_gradient, self.hardware)
        self.time, self.d_model = self.model.config.max_seq_len, self.model.config.d_model
        self.rows = micro_batch_rows(
            given.runtime, self.model.config, self.time, recipe.batch_rows, self.hardware.device
        )
        self.micro = self._packed(given.train, recipe.max_tokens)
        self.held_out = self._packed(given.held_out, recipe.validation_tokens)
        self.per_step = recipe.batch_rows // self.rows
        self.tokens_per_step = recipe.batch_rows * self.time
        wanted = math.ceil(recipe.epochs * len(self.micro) / self.per_step)
        self.steps = max(1, min(wanted, recipe.max_tokens // self.tokens_per_step))
        self.before = self.validation_loss()

    def batches(self, step: int) -> Sequence[_Batch]:
        taken = chosen_at(step, len(self.micro), self.per_step, self.recipe.seed, "sft batches")
        found = [self.micro[i] for i in taken]
        total = sum(float(batch.weights.sum()) for batch in found)
        return [replace(batch, total=total) for batch in found]

    def loss(self, model: nn.Module, batch: _Batch) -> tuple[Tensor, dict[str, Any]]:
        total, _ = self._sums(batch)
        return total / batch.total, {}

    def validation_loss(self) -> float:
        """Nats per learnt token of held-out conversations."""
        with torch.no_grad():
            sums = [self._sums(batch) for batch in self.held_out]
        return float(sum(total for total, _ in sums)) / float(sum(weight for _, weight in sums))

    def finish(self) -> Metrics:
        if self.recipe.lora_rank:
            merge(self.model)
        save_model(self.given.out.path, self.model, self.given.tokenizer)
        rendered = [
            _rendered(example, self.given.tokenizer, self.time) for example in self.given.train[:SHOWN]
        ]
        pieces = [coloured(one, self.given.tokenizer) for one in rendered if one is not None]
        write_json(self.given.out.file("examples.json"), pieces)
        return {
            "val_loss_before": self.before,
            "val_loss": self.validation_loss(),
            "conversations": sum(len(batch.packed.places) for batch in self.micro),
            "held_out_conversations": sum(len(batch.packed.places) for batch in self.held_out),
        }

    def _sums(self, batch: _Batch) -> tuple[Tensor, Tensor]:
        device = self.hardware.device
        packed = batch.packed.to(device)
        hidden = self.model.hidden(packed.ids, packed.segments)
        targets, weights = batch.targets.to(device), batch.weights.to(device)
        return cross_entropy(
            hidden.flatten(0, 1),
            self.model.head_weight,
            targets.flatten(),
            weights.flatten(),
            self.kernel,
            self.model.config.logit_softcap,
        )

    def _packed(self, examples: Sequence[Example], tokens: int) -> list[_Batch]:
        """Conversations in an order of their own, until they hold `tokens`: more would never be read."""
        rendered: list[RenderedChat] = []
        for i in permutation(len(examples), self.recipe.seed, "sft order"):
            one = _rendered(examples[i], self.given.tokenizer, self.time)
            if one is None:
                continue
            rendered.append(one)
            tokens -= len(one.ids)
            if tokens <= 0:
                break
        if not rendered:
            raise DataError(
                f"sft: none of {len(examples)} conversations fits into the model's context of {self.time} tokens. "
                "Give more text, or raise tokenize.seq_len"
            )
        groups = [[one.ids] for one in rendered]
        layouts = fill([[len(one.ids)] for one in rendered], self.rows, self.time)
        return [
            _with_targets(pack(groups, places, self.rows, self.time, self.given.tokenizer.pad), rendered)
            for places in layouts
        ]


def coloured(rendered: RenderedChat, tokenizer: Tokenizer) -> list[tuple[str, bool]]:
    """A conversation in pieces of text that are learnt or only read, control tokens spelled out."""
    pieces: list[tuple[list[int], bool]] = []
    for token, learnt in zip(rendered.ids, rendered.loss_mask, strict=True):
        if not pieces or pieces[-1][1] != learnt:
            pieces.append(([], learnt))
        pieces[-1][0].append(token)
    return [(tokenizer.decode(ids, specials=True), learnt) for ids, learnt in pieces]


def _rendered(example: Example, tokenizer: Tokenizer, time: int) -> RenderedChat | None:
    """A conversation of at most `time` tokens; None where cutting it leaves nothing to learn."""
    whole = render(example.conversation().messages, tokenizer)
    cut = RenderedChat(whole.ids[:time], whole.loss_mask[:time])
    return cut if any(cut.loss_mask) else None


def _with_targets(packed: PackedBatch, rendered: Sequence[RenderedChat]) -> _Batch:
    """What follows each position, weighed by whether it's to be learnt."""
    targets = packed.ids.flatten().roll(-1)
    weights = torch.zeros(targets.shape)
    for place in packed.places:
        learn = rendered[place.group].loss_mask[1:]
        weights[place.start : place.start + len(learn)] = torch.tensor(learn, dtype=torch.float32)
    return _Batch(packed, targets.view(packed.ids.shape), weights.view(packed.ids.shape))
