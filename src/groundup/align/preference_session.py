"""The training of all methods that learn from preferences without sampling: DPO, SimPO, ORPO, KTO and their variants.

in:  groups of scored sequences (a pair; or a labelled response), a loss for each group
out: the trained policy; log-ratios, margins and accuracy on held-out groups

The initial policy's log-probabilities are computed once, before the first step, and kept in the resume folder: it is
the reference policy, also of LoRA, whatever adapters were merged into it before. They are computed for methods without
a reference policy too, because the log-ratios of both responses are always logged: a chosen response whose log-ratio
falls is a known failure of these losses (Pal et al. 2024, arXiv:2402.13228).
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from safetensors.torch import load, save
from torch import Tensor

from groundup.align.method import Method, MethodContext
from groundup.align.packing import epoch_indices, pack_all, permutation
from groundup.align.preference_objectives import mean_per_token
from groundup.align.sequences import ScoredSequence, SequenceBatch, sequence_batch, sequence_log_probs
from groundup.align.session import SessionSetup
from groundup.core.atomic_io import write_bytes
from groundup.core.errors import DataError
from groundup.core.registry import plugin_name
from groundup.core.stage import Metrics
from groundup.evaluate.alignment_data import RecordKind
from groundup.model.checkpoint import save_model
from groundup.model.decoder import Decoder
from groundup.model.lora import Lora, attach, merge
from groundup.parallel.context import heartbeat
from groundup.parallel.hardware import prepare_model
from groundup.train.loop import TrainSpec

REFERENCE_FILE = "reference.safetensors"
"""In the resume folder: the reference policy's log-probability of every sequence."""


@dataclass(frozen=True)
class Answers:
    """Sums of log-probabilities under the policy and the reference policy. Members of a pair: chosen, rejected."""

    log_probs: Float[Tensor, "groups members"]
    reference: Float[Tensor, "groups members"]
    tokens: Float[Tensor, "groups members"]
    """scored tokens"""
    desirable: Bool[Tensor, " groups"]
    """label of the first member"""
    reference_point: float = 0.0
    """KTO's z"""
    good_share: float = 1.0
    """fraction of desirable responses in the whole step"""

    @property
    def log_ratios(self) -> Float[Tensor, "groups members"]:
        """log(policy / reference policy)."""
        return self.log_probs - self.reference

    def per_token(self, sums: Float[Tensor, "groups members"]) -> Float[Tensor, "groups members"]:
        """Sums divided by the members' token counts."""
        return mean_per_token(sums, self.tokens)


@dataclass(frozen=True)
class PreferenceGroup:
    """Sequences that stay in one micro-batch, and the label of the first one."""

    sequences: tuple[ScoredSequence, ...]
    desirable: bool = True


@dataclass(frozen=True)
class AnswerBatch:
    """A micro-batch of groups. total: groups in the whole step, on all ranks."""

    sequences: SequenceBatch
    reference: Float[Tensor, "groups members"]
    desirable: Bool[Tensor, " groups"]
    total: float = 1.0
    reference_point: float = 0.0
    good_share: float = 1.0

    def answers(self, policy: Decoder, device: torch.device) -> Answers:
        """The log-probabilities under `policy`."""
        sequences, shape = self.sequences.to(device), self.reference.shape
        return Answers(
            sequence_log_probs(policy, sequences).view(shape),
            self.reference.to(device),
            sequences.tokens.view(shape),
            self.desirable.to(device),
            self.reference_point,
            self.good_share,
        )


class PreferenceMethod(Method):
    """Settings of the methods that learn from preferences."""

    learns_from: ClassVar[frozenset[RecordKind]] = frozenset({"rankings", "conversations"})
    engines: ClassVar[frozenset[str]] = frozenset({"native", "deepspeed"})
    headline: ClassVar[tuple[str, ...]] = ("accuracy_before", "accuracy", "chosen_log_ratio")

    batch_rows: int = Field(
        default=8, ge=1, description="packed sequences per step, each as long as the model's context"
    )
    epochs: float = Field(default=1.0, gt=0, description="maximum passes over the preferences")
    max_tokens: int = Field(default=800_000, ge=1, description="maximum training tokens, padding included")
    made: int = Field(
        default=1500,
        ge=0,
        description="pairs made of the conversations for each kind of fault, where the data has no rankings",
    )
    held_out: int = Field(default=256, ge=1, description="most held-out pairs or responses that are measured")
    lora_rank: int = Field(
        default=0,
        ge=0,
        description="rank of the LoRA adapters, merged into the weights at the end; 0 = all weights are trained",
    )

    @abstractmethod
    def losses(self, answers: Answers) -> Float[Tensor, " groups"]:
        """The loss of each group."""


class PreferenceSession:
    """A training on preferences."""

    def __init__(
        self,
        recipe: PreferenceMethod,
        context: MethodContext,
        train: Sequence[PreferenceGroup],
        held_out: Sequence[PreferenceGroup],
    ) -> None:
        self.recipe, self.context = recipe, context
        self.setup = SessionSetup.create(recipe, context, recipe.batch_rows)
        self.groups, self.dropped = self._usable(train)
        self.held_out, _ = self._usable(held_out)
        self.held_out = self.held_out[: recipe.held_out]
        if not self.groups or not self.held_out:
            raise DataError(self._nothing_left(len(train), len(held_out)))
        start = self.setup.start_policy()
        reference = self.setup.start_policy()
        prepare_model(reference, self.setup.hardware)
        self.reference, self.held_out_reference = self._reference_log_probs(reference)
        del reference
        if recipe.lora_rank:
            attach(start, Lora(recipe.lora_rank, alpha=2.0 * recipe.lora_rank), recipe.seed)
        self.trained = self.setup.trained(start, self.loss)
        order = permutation(len(self.groups), recipe.seed, "preference order")
        self.micro_batches = self._micro_batches([self.groups[i] for i in order], self.reference[order])
        self.per_step = recipe.batch_rows // self.setup.shape.rows
        self.tokens_per_step = recipe.batch_rows * self.setup.shape.time
        self.budget = self.setup.budget(recipe, "preferences", len(self.micro_batches))

    def train_spec(self) -> TrainSpec:
        """See `Session`."""
        return self.setup.train_spec(
            self.trained.engine, self.batches, self.budget.steps, self.tokens_per_step
        )

    def batches(self, step: int) -> list[AnswerBatch]:
        """This rank's micro-batches of a step, each with the number of groups of the whole step."""
        count, seed = len(self.micro_batches), self.recipe.seed
        batches = [
            self.micro_batches[i]
            for i in epoch_indices(step, count, self.per_step, seed, "preference batches")
        ]
        total = float(sum(len(batch.reference) for batch in batches))
        local_batches = batches[self.setup.parallel.dp_slice(len(batches))]
        good_share = sum(float(batch.desirable.sum()) for batch in batches) / total
        return [replace(batch, total=total, good_share=good_share) for batch in local_batches]

    def loss(self, model: Decoder, batch: AnswerBatch) -> tuple[Tensor, dict[str, Any]]:
        """A micro-batch's part of the step's mean loss per group, and of its metrics."""
        answers = batch.answers(model, self.setup.hardware.device)
        losses = self.recipe.losses(answers)
        metrics = {name: value.sum() / batch.total for name, value in self.metrics(answers).items()}
        return losses.sum() / batch.total, metrics

    def metrics(self, answers: Answers) -> dict[str, Tensor]:
        """The logged values of each pair: both log-ratios, their difference, and 1.0 where it is above 0."""
        chosen, rejected = answers.log_ratios.detach().unbind(dim=1)
        return {
            "chosen_log_ratio": chosen,
            "rejected_log_ratio": rejected,
            "margin": chosen - rejected,
            "accuracy": (chosen > rejected).float(),
        }

    def finish(self) -> Metrics:
        """See `Session`."""
        policy, parallel = self.trained.whole(), self.setup.parallel
        metrics = self._measured(policy)
        if self.recipe.lora_rank:
            merge(policy)
        if parallel.is_rank0:
            save_model(self.context.stage.path, policy, self.context.tokenizer, chat=True)
        return metrics | {
            "groups": len(self.groups),
            "held_out_groups": len(self.held_out),
            "dropped_too_long": self.dropped["too_long"],
            "dropped_equal": self.dropped["equal"],
            **self.budget.metrics(),
        }

    def _measured(self, policy: Decoder) -> Metrics:
        """Means over the held-out groups; `accuracy`: how often the chosen response is the likelier one."""
        log_probs = self._log_probs(policy, self.held_out)
        reference = self.held_out_reference
        tokens = torch.tensor([[one.tokens for one in group.sequences] for group in self.held_out])
        desirable = torch.tensor([group.desirable for group in self.held_out])
        answers = Answers(
            log_probs, reference, tokens.float(), desirable, good_share=float(desirable.float().mean())
        )
        means = {name: float(value.mean()) for name, value in self.metrics(answers).items()}
        likelier = {
            "accuracy_before": float((reference[:, 0] > reference[:, 1]).float().mean()),
            "accuracy": float((log_probs[:, 0] > log_probs[:, 1]).float().mean()),
        }
        rewards = {"reward_accuracy": means.pop("accuracy")} if "accuracy" in means else {}
        return {"loss": float(self.recipe.losses(answers).mean())} | means | rewards | likelier

    def _usable(self, groups: Sequence[PreferenceGroup]) -> tuple[list[PreferenceGroup], dict[str, int]]:
        """The groups that fit into a micro-batch whole and whose members differ; the others are counted."""
        shape, kept, dropped = self.setup.shape, [], {"too_long": 0, "equal": 0}
        for group in groups:
            lengths = [len(one.ids) for one in group.sequences]
            if max(lengths) > shape.time or (shape.rows == 1 and sum(lengths) > shape.time):
                dropped["too_long"] += 1
            elif len(group.sequences) == 2 and group.sequences[0].ids == group.sequences[1].ids:
                dropped["equal"] += 1
            else:
                kept.append(group)
        return kept, dropped

    def _nothing_left(self, train: int, held_out: int) -> str:
        return (
            f"{plugin_name(self.recipe)}: of {train} preferences to train on and {held_out} held out, "
            f"{len(self.groups)} and {len(self.held_out)} are left that fit into {self.setup.shape.time} tokens and "
            "whose responses differ; at least one each is needed, of different prompts. Add data with [[data]], or "
            "raise the step's seq_len (limit: the model's context)"
        )

    def _reference_log_probs(self, reference: Decoder) -> tuple[Tensor, Tensor]:
        """The reference policy's log-probabilities of the training and the held-out groups, from the resume folder."""
        path, parallel = self.context.stage.temporary / REFERENCE_FILE, self.setup.parallel
        kept = parallel.broadcast_object(lambda: path.read_bytes() if path.exists() else None)
        if kept is None:
            tensors = {
                "train": self._log_probs(reference, self.groups),
                "held_out": self._log_probs(reference, self.held_out),
            }
            if parallel.is_rank0:
                write_bytes(path, save(tensors))
        else:
            tensors = load(kept)
        return tensors["train"], tensors["held_out"]

    def _log_probs(
        self, policy: Decoder, groups: Sequence[PreferenceGroup]
    ) -> Float[Tensor, "groups members"]:
        """Summed log-probabilities; each data-parallel rank computes a part. Computed as in training, with kernels
        for a backward pass that is not taken."""
        device = self.setup.hardware.device

        def compute(part: Sequence[PreferenceGroup], _: int) -> Tensor:
            nothing = torch.zeros(len(part), len(part[0].sequences))
            sums = []
            for batch in self._micro_batches(part, nothing):
                heartbeat()
                with torch.enable_grad():
                    sums.append(batch.answers(policy, device).log_probs.detach().float().cpu())
            return torch.cat(sums)

        return torch.cat(self.setup.divided(groups, compute))

    def _micro_batches(
        self, groups: Sequence[PreferenceGroup], reference: Float[Tensor, "groups members"]
    ) -> list[AnswerBatch]:
        shape, batches = self.setup.shape, []
        sequences = [group.sequences for group in groups]
        ids = [[one.ids for one in group] for group in sequences]
        for packed in pack_all(ids, shape.rows, shape.time, shape.pad):
            batch = sequence_batch(packed, sequences)
            chosen = list(dict.fromkeys(batch.groups))
            desirable = torch.tensor([groups[i].desirable for i in chosen])
            batches.append(AnswerBatch(batch, reference[chosen], desirable))
        return batches
