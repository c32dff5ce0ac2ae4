"""Method: supervised fine-tuning. Questions with right answers -> a model that answers.

in:  an initial policy, conversations
out: the policy after training on the answers; held-out loss before and after

Ouyang et al. 2022 (arXiv:2203.02155), step 1. The loss is on the assistant's tokens alone, and all of a step's tokens
have the same weight: the sum over its micro-batches, on all ranks, is divided by the step's number of assistant tokens
instead of being averaged per conversation.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from groundup.align.methods import Method, MethodContext, Session
from groundup.align.neftune import noisy_embeddings
from groundup.align.packing import PackedBatch, epoch_indices, pack_all, permutation
from groundup.align.session import SessionSetup
from groundup.core.atomic_io import write_json
from groundup.core.errors import DataError
from groundup.core.records import Conversation, Message
from groundup.core.registry import Plugin
from groundup.core.rng import derive_seed
from groundup.core.stage import ArtifactKind, Metrics
from groundup.evaluate.alignment_data import RecordKind
from groundup.model.checkpoint import save_model
from groundup.model.decoder import Decoder
from groundup.model.lora import Lora, attach, merge
from groundup.model.losses import chunk_with_gradient
from groundup.parallel.hardware import compiled
from groundup.tokens.chat import RenderedChat, render
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.batches import TokenBatch
from groundup.train.init_from import save_checkpoint
from groundup.train.loop import TrainSpec
from groundup.train.optimizers import Optimizer
from groundup.train.optimizers.muon import Muon
from groundup.train.validate import token_loss

SHOWN = 8
"""Conversations written to `examples.json`."""


class Sft(Method):
    """Supervised fine-tuning on conversations, with the loss on the assistant's messages alone."""

    inputs: ClassVar[Mapping[str, ArtifactKind]] = {"start": "policy"}
    learns_from: ClassVar[frozenset[RecordKind]] = frozenset({"conversations"})
    output: ClassVar[ArtifactKind] = "policy"
    engines: ClassVar[frozenset[str]] = frozenset({"native", "deepspeed"})
    headline: ClassVar[tuple[str, ...]] = ("tokens", "epochs", "unread_share", "val_loss_before", "val_loss")

    version: ClassVar[int] = 2
    optimizer: Annotated[Optimizer, Plugin("groundup.train.optimizers")] = Muon(
        lr=0.005, adam_lr=2e-3, adam_beta1=0.9
    )
    batch_rows: int = Field(default=8, ge=1, description="packed sequences per step")
    epochs: float = Field(default=3.0, gt=0, description="maximum passes over the conversations")
    max_tokens: int = Field(
        default=0,
        ge=0,
        description="maximum training tokens, padding included; 0 = as many as the epochs need",
    )
    validation_tokens: int = Field(
        default=16_000, ge=1, description="maximum held-out tokens that val_loss is computed on"
    )
    loss_on: Literal["all", "last"] = Field(
        default="all", description="assistant messages with a loss: all of a conversation, or its last one"
    )
    neftune_alpha: float = Field(
        default=0.0, ge=0, description="scale of NEFTune's noise on the embeddings, often 5; 0 = none"
    )
    lora_rank: int = Field(
        default=0,
        ge=0,
        description="rank of the LoRA adapters, merged into the weights at the end; 0 = all weights are trained",
    )

    def prepare(self, context: MethodContext) -> Session:
        """Render and pack the conversations."""
        return SftSession(self, context)


@dataclass(frozen=True)
class SftBatch(TokenBatch):
    """A micro-batch of conversations. noise_seed: of NEFTune's noise; None = no noise, as in validation."""

    noise_seed: int | None = None


@dataclass(frozen=True)
class PackedConversations:
    """Micro-batches, and what they hold. cut: conversations that are longer than a packed sequence, and end there.

    unusable: conversations that are left out, since no answer begins before the cut.
    """

    batches: list[SftBatch]
    conversations: int
    cut: int
    unusable: int


class SftSession:
    """A fine-tuning."""

    def __init__(self, recipe: Sft, context: MethodContext) -> None:
        self.recipe, self.context = recipe, context
        self.setup = SessionSetup.create(recipe, context, recipe.batch_rows)
        self.train_conversations, held_out = context.both_splits("conversations")
        self.packed = self._packed(self.train_conversations, recipe.max_tokens)
        self.held_out = self._packed(held_out, recipe.validation_tokens)
        self.micro_batches = self.packed.batches
        self._print_cuts()
        self.per_step = recipe.batch_rows // self.setup.shape.rows
        self.tokens_per_step = recipe.batch_rows * self.setup.shape.time
        self.budget = self.setup.budget(  # max_tokens may leave some conversations unpacked
            recipe,
            "conversations",
            len(self.micro_batches),
            self.packed.conversations / len(self.train_conversations),
        )
        self.kernel = compiled(chunk_with_gradient, self.setup.hardware)
        model = self.setup.start_policy()
        if recipe.lora_rank:
            attach(model, Lora(recipe.lora_rank, alpha=2.0 * recipe.lora_rank), recipe.seed)
        self.trained = self.setup.trained(model, self.loss)
        self.val_loss_before = self.validation_loss()

    def train_spec(self) -> TrainSpec:
        """See `Session`."""
        return self.setup.train_spec(
            self.trained.engine, self.batches, self.budget.steps, self.tokens_per_step
        )

    def batches(self, step: int) -> list[SftBatch]:
        """This rank's micro-batches of a step, each with the token count of the whole step."""
        chosen = epoch_indices(step, len(self.micro_batches), self.per_step, self.recipe.seed, "sft batches")
        batches = [self.micro_batches[i] for i in chosen]
        total = sum(float(batch.weights.sum()) for batch in batches)
        if self.recipe.neftune_alpha:
            seeds = [derive_seed(self.recipe.seed, "neftune", step, number) for number in range(len(batches))]
            batches = [replace(batch, noise_seed=seed) for batch, seed in zip(batches, seeds, strict=True)]
        local_batches = batches[self.setup.parallel.dp_slice(len(batches))]
        return [replace(batch, total=total) for batch in local_batches]

    def loss(self, model: Decoder, batch: SftBatch) -> tuple[Tensor, dict[str, Any]]:
        """A micro-batch's part of the step's mean loss per assistant token."""
        with nullcontext() if batch.noise_seed is None else self._noise(model, batch, batch.noise_seed):
            loss = token_loss(model, batch, self.kernel)
        return loss / batch.total, {}

    def _noise(self, model: Decoder, batch: SftBatch, seed: int) -> AbstractContextManager[None]:
        return noisy_embeddings(model, batch.segments, self.recipe.neftune_alpha, seed)

    def validation_loss(self) -> float:
        """Nats per assistant token of held-out conversations. With several ranks, all must call this."""
        parallel = self.setup.parallel
        batches = self.held_out.batches[parallel.dp_rank :: parallel.dp_size]
        # Ranks compute in step: one with fewer micro-batches evaluates another one without weight.
        missing = -(-len(self.held_out.batches) // parallel.dp_size) - len(batches)
        unweighted = replace(
            self.held_out.batches[0], weights=torch.zeros_like(self.held_out.batches[0].weights)
        )
        batches += [unweighted] * missing
        losses = [self.trained.engine.eval_loss(batch).float().cpu() for batch in batches]
        sums = torch.stack([torch.stack(losses), torch.stack([batch.weights.sum() for batch in batches])])
        total, tokens = parallel.sum(sums.sum(dim=1)).tolist()
        return float(total / tokens)

    def finish(self) -> Metrics:
        """See `Session`."""
        val_loss, folder, tokenizer = self.validation_loss(), self.context.stage.path, self.context.tokenizer
        parallel = self.setup.parallel
        if self.recipe.lora_rank:
            model = self.trained.whole()
            merge(model)
            if parallel.is_rank0:
                save_model(folder, model, tokenizer, chat=True)
        else:
            save_checkpoint(folder, self.trained.engine, self.setup.config, tokenizer, parallel, chat=True)
        if parallel.is_rank0:
            self._write_examples()
        return {
            "val_loss_before": self.val_loss_before,
            "val_loss": val_loss,
            "conversations": self.packed.conversations,
            "cut_conversations": self.packed.cut,
            "unusable_conversations": self.packed.unusable,
            "held_out_conversations": self.held_out.conversations,
            "tokens": self.budget.steps * self.tokens_per_step,
            **self.budget.metrics(),
        }

    def _print_cuts(self) -> None:
        """Print how many training conversations are longer than a packed sequence."""
        cut, unusable, time = self.packed.cut, self.packed.unusable, self.setup.shape.time
        if cut or unusable:
            self.context.stage.info(
                f"sft: conversations longer than a packed sequence of {time} tokens: {cut} are cut, {unusable} are "
                "left out, since no answer begins before the cut. Raise the step's seq_len (limit: the model's "
                "context) to read them whole"
            )

    def _rendered(self, talk: Conversation) -> tuple[RenderedChat | None, bool]:
        """A conversation of at most a packed sequence, None where the cut leaves no token with a loss; whether cut."""
        time = self.setup.shape.time
        whole = render(in_loss(talk.messages, self.recipe.loss_on), self.context.tokenizer)
        kept = RenderedChat(whole.ids[:time], whole.loss_mask[:time])
        return (kept if any(kept.loss_mask) else None), len(whole.ids) > time

    def _write_examples(self) -> None:
        """The first conversations, for people to check the loss mask."""
        rendered = [self._rendered(talk)[0] for talk in self.train_conversations[:SHOWN]]
        spans = [loss_mask_spans(chat, self.context.tokenizer) for chat in rendered if chat is not None]
        write_json(self.context.stage.file("examples.json"), spans)

    def _packed(self, talks: Sequence[Conversation], tokens: int) -> PackedConversations:
        """Micro-batches of shuffled conversations, of at most `tokens` (0 = of all)."""
        shape, cut, unusable = self.setup.shape, 0, 0
        rendered: list[RenderedChat] = []
        packed_tokens = 0
        for i in permutation(len(talks), self.recipe.seed, "sft order"):
            chat, is_cut = self._rendered(talks[i])
            if chat is None:
                unusable += 1
                continue
            cut += is_cut
            rendered.append(chat)
            packed_tokens += len(chat.ids)
            if tokens and packed_tokens >= tokens:
                break
        if not rendered:
            raise DataError(
                f"sft: none of {len(talks)} conversations fits into a packed sequence of {shape.time} tokens. "
                "Give more text, or raise the step's seq_len (limit: the model's context)"
            )
        packed = pack_all([[chat.ids] for chat in rendered], shape.rows, shape.time, shape.pad)
        batches = [_with_targets(batch, rendered) for batch in packed]
        return PackedConversations(batches, len(rendered), cut, unusable)


def loss_mask_spans(rendered: RenderedChat, tokenizer: Tokenizer) -> list[tuple[str, bool]]:
    """A conversation as spans of text with their loss mask, control tokens spelled out."""
    spans: list[tuple[list[int], bool]] = []
    for token, in_loss in zip(rendered.ids, rendered.loss_mask, strict=True):
        if not spans or spans[-1][1] != in_loss:
            spans.append(([], in_loss))
        spans[-1][0].append(token)
    return [(tokenizer.decode(ids, specials=True), in_loss) for ids, in_loss in spans]


def in_loss(messages: Sequence[Message], loss_on: Literal["all", "last"]) -> list[Message]:
    """The messages, of which with "last" only the last one is in the loss."""
    if loss_on == "all":
        return list(messages)
    return [*(replace(message, in_loss=False) for message in messages[:-1]), messages[-1]]


def _with_targets(packed: PackedBatch, rendered: Sequence[RenderedChat]) -> SftBatch:
    """The next token of each position, weighted 1 where the loss mask is true, else 0."""
    targets = packed.ids.flatten().roll(-1)
    weights = torch.zeros(targets.shape)
    for span in packed.spans:
        loss_mask = rendered[span.group].loss_mask[1:]
        weights[span.start : span.start + len(loss_mask)] = torch.tensor(loss_mask, dtype=torch.float32)
    shape = packed.ids.shape
    return SftBatch(packed.ids, targets.view(shape), packed.segments, weights.view(shape))
