"""Method: reward model. Pairs of a preferred and a rejected answer -> a score of answers.

in:  an initial policy, conversations
out: its backbone with a score head; held-out accuracy for each kind of pair

Ouyang et al. 2022 (arXiv:2203.02155), step 2: the loss is Bradley-Terry's. We differ in the source of the preferences
(known faults instead of people: see `align/pairs.py`) and in that the scores are normalised after training, so that
held-out right answers have mean 0 and standard deviation 1 (`align/reward_scale.py`): a difference of 1 then means the
same to PPO in every run.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from groundup.align.methods import Method, MethodContext, Session
from groundup.align.objectives import bradley_terry
from groundup.align.packing import PackedBatch, epoch_indices, pack_all, permutation
from groundup.align.pairs import MADE, Pair, made_pairs
from groundup.align.reward_scale import check_answers, reward_scale
from groundup.align.rollouts import REWARD_FILE, last_values
from groundup.align.session import SessionSetup
from groundup.core.atomic_io import write_json
from groundup.core.errors import DataError
from groundup.core.records import Conversation, Message
from groundup.core.registry import Plugin
from groundup.core.rng import derive_seed
from groundup.core.stage import ArtifactKind, Metrics
from groundup.evaluate.alignment_data import RecordKind
from groundup.evaluate.score import chat_engine
from groundup.model.checkpoint import save_model
from groundup.model.decoder import Decoder
from groundup.model.value_head import ValueModel
from groundup.parallel.context import heartbeat
from groundup.tokens.chat import render
from groundup.train.budget import training_budget
from groundup.train.loop import TrainSpec
from groundup.train.optimizers import Optimizer
from groundup.train.optimizers.muon import Muon


class Reward(Method):
    """A reward model that prefers right answers to wrong ones: another object's, truncated, garbled, sampled."""

    version: ClassVar[int] = 2
    inputs: ClassVar[Mapping[str, ArtifactKind]] = {"start": "policy"}
    learns_from: ClassVar[frozenset[RecordKind]] = frozenset({"conversations"})
    output: ClassVar[ArtifactKind] = "reward_model"
    engines: ClassVar[frozenset[str]] = frozenset({"native", "deepspeed"})
    headline: ClassVar[tuple[str, ...]] = ("accuracy",)

    optimizer: Annotated[Optimizer, Plugin("groundup.train.optimizers")] = Muon(
        lr=0.005, adam_lr=1e-3, adam_beta1=0.9, ns_steps=3
    )
    batch_rows: int = Field(default=4, ge=1, description="packed sequences per step")
    epochs: float = Field(default=1.0, gt=0, description="maximum passes over the pairs")
    max_tokens: int = Field(default=800_000, ge=1, description="maximum training tokens, padding included")
    other: int = Field(default=4000, ge=0, description="pairs whose rejected answer is about another object")
    truncated: int = Field(default=1200, ge=0, description="pairs whose rejected answer is truncated")
    garbled: int = Field(default=1800, ge=0, description="pairs whose rejected answer is garbled")
    sampled: int = Field(
        default=800, ge=0, description="pairs whose rejected answer is sampled from the initial policy"
    )
    held_out: int = Field(default=160, ge=1, description="held-out pairs of each kind to measure accuracy on")
    margin: float = Field(
        default=0.0, ge=0, description="margin by which the preferred answer's score should be higher"
    )
    max_new_tokens: int = Field(default=96, ge=1, description="maximum tokens of a sampled answer")
    temperature: float = Field(default=1.0, gt=0, description="sampling temperature of the sampled answers")

    def prepare(self, context: MethodContext) -> Session:
        """Make the pairs, some of them with answers sampled from the initial policy."""
        return RewardSession(self, context)


@dataclass(frozen=True)
class PreferenceBatch:
    """A micro-batch of pairs. `total`: pairs in the whole step, on all ranks."""

    packed: PackedBatch
    last_positions: Tensor
    """flat position of the last token, [pairs, 2]: preferred, rejected"""
    total: float = 1.0


@dataclass(frozen=True)
class RenderedPair:
    """A pair as ids: the conversation with the preferred answer, the one with the rejected answer."""

    kind: str
    ids: tuple[list[int], list[int]]


class RewardSession:
    """A training of a reward model."""

    def __init__(self, recipe: Reward, context: MethodContext) -> None:
        self.recipe, self.context = recipe, context
        self.setup = SessionSetup.create(recipe, context, recipe.batch_rows)
        self.train_talks, self.held_out_talks = context.both_splits("conversations")
        start = self.setup.start_policy()
        model = ValueModel(start.config)
        model.to(self.setup.hardware.device).init_from_decoder(start, derive_seed(recipe.seed, "score"))
        self.trained = self.setup.trained(model, self.loss)
        pairs, self.held_out = self._all_pairs(start)
        order = permutation(len(pairs), recipe.seed, "reward order")
        self.micro_batches = self._micro_batches([pairs[i].ids for i in order])
        self.per_step = recipe.batch_rows // self.setup.shape.rows
        self.tokens_per_step = recipe.batch_rows * self.setup.shape.time
        limits = {
            "epochs": math.ceil(recipe.epochs * len(self.micro_batches) / self.per_step),
            "max_tokens": recipe.max_tokens // self.tokens_per_step,
        }
        self.budget = training_budget(len(self.micro_batches), self.per_step, limits)
        context.stage.info(self.budget.sentence("pairs", getattr(recipe, self.budget.ended_by)))

    def train_spec(self) -> TrainSpec:
        """See `Session`."""
        return self.setup.train_spec(
            self.trained.engine, self.batches, self.budget.steps, self.tokens_per_step
        )

    def batches(self, step: int) -> list[PreferenceBatch]:
        """This rank's micro-batches of a step, each with the number of pairs of the whole step."""
        chosen = epoch_indices(
            step, len(self.micro_batches), self.per_step, self.recipe.seed, "reward batches"
        )
        batches = [self.micro_batches[i] for i in chosen]
        total = float(sum(len(batch.last_positions) for batch in batches))
        local_batches = batches[self.setup.parallel.dp_slice(len(batches))]
        return [replace(batch, total=total) for batch in local_batches]

    def loss(self, model: ValueModel, batch: PreferenceBatch) -> tuple[Tensor, dict[str, Any]]:
        """A micro-batch's part of the step's mean loss per pair, and of its accuracy."""
        packed = batch.packed.to(self.setup.hardware.device)
        values = model.values(packed.ids, packed.segments).flatten()
        preferred, rejected = values[batch.last_positions.to(values.device)].unbind(dim=1)
        loss = bradley_terry(preferred, rejected, self.recipe.margin).sum() / batch.total
        return loss, {"accuracy": (preferred > rejected).float().sum() / batch.total}

    def finish(self) -> Metrics:
        """See `Session`."""
        model: ValueModel = self.trained.whole()
        preferred, rejected = self._held_out_scores(model).unbind(dim=1)
        scale = reward_scale(preferred, rejected, [tuple(pair.ids[0]) for pair in self.held_out])
        if self.setup.parallel.is_rank0:
            folder = self.context.stage.path
            save_model(folder, model, self.context.tokenizer)
            write_json(folder / REWARD_FILE, asdict(scale))
        correct = (preferred > rejected).float()
        kinds = [pair.kind for pair in self.held_out]
        return {
            "accuracy": float(correct.mean()),
            "accuracy_by_kind": {
                kind: float(correct[[i for i, other in enumerate(kinds) if other == kind]].mean())
                for kind in dict.fromkeys(kinds)
            },
            "loss": float(bradley_terry(preferred, rejected).mean()),
            "margin_of_right_answers": float((preferred - rejected).mean() / scale.std),
            "pairs": sum(len(batch.last_positions) for batch in self.micro_batches),
            "held_out_pairs": len(self.held_out),
            "tokens": self.budget.steps * self.tokens_per_step,
            **self.budget.metrics(),
        }

    def _held_out_scores(self, model: ValueModel) -> Tensor:
        """Scores of the held-out pairs [pairs, 2]; each data-parallel rank computes a part."""

        def scores(pairs: Sequence[RenderedPair], _: int) -> Tensor:
            return last_values(model, [ids for pair in pairs for ids in pair.ids], self.setup.shape)

        return torch.cat(self.setup.divided(self.held_out, scores)).view(-1, 2)

    def _all_pairs(self, start: Decoder) -> tuple[list[RenderedPair], list[RenderedPair]]:
        """Pairs to train on and pairs to measure accuracy on."""
        recipe, sampled = self.recipe, self._sampled_pairs(start)
        train = [
            pair for kind in MADE for pair in self._made_pairs(self.train_talks, kind, getattr(recipe, kind))
        ]
        held_out = [
            pair for kind in MADE for pair in self._made_pairs(self.held_out_talks, kind, recipe.held_out)
        ]
        train, held_out = train + sampled["train"], held_out + sampled["held_out"]
        if not train or not held_out:
            raise DataError(
                f"reward: of {len(self.train_talks)} conversations no pair of answers fits into a packed "
                f"sequence of {self.setup.shape.time} tokens. Give more text, or raise the step's seq_len (limit: "
                "the model's context)"
            )
        check_answers(len({tuple(pair.ids[0]) for pair in held_out}))
        return train, held_out

    def _made_pairs(self, talks: Sequence[Conversation], kind: str, count: int) -> list[RenderedPair]:
        order = permutation(len(talks), self.recipe.seed, "pairs", kind)
        return self._rendered(made_pairs([talks[i] for i in order], kind, count, self.recipe.seed))

    def _sampled_pairs(self, start: Decoder) -> dict[str, list[RenderedPair]]:
        """Pairs with answers of the initial policy, which are kept on disk because sampling takes long."""
        path, recipe = self.context.stage.temporary / "sampled.json", self.recipe
        chosen = {
            "train": self._to_sample(self.train_talks, recipe.sampled),
            "held_out": self._to_sample(self.held_out_talks, min(recipe.held_out, recipe.sampled)),
        }
        parallel = self.setup.parallel
        answers = parallel.broadcast_object(
            lambda: json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        )
        if answers is None:
            answers = {part: self._sampled_answers(start, talks) for part, talks in chosen.items()}
            if parallel.is_rank0:
                write_json(path, answers)
        return {
            part: self._rendered(
                [
                    Pair(talk, answer, "sampled")
                    for talk, answer in zip(talks, answers[part], strict=True)
                    if answer != talk.messages[-1].content
                ]
            )
            for part, talks in chosen.items()
        }

    def _to_sample(self, talks: Sequence[Conversation], count: int) -> list[Conversation]:
        order = permutation(len(talks), self.recipe.seed, "pairs", "sampled")
        time = self.setup.shape.time
        fitting = (talks[i] for i in order if len(self.setup.prompt_ids(talks[i].messages[:-1])) < time)
        return list(islice(fitting, count))

    def _sampled_answers(self, start: Decoder, talks: Sequence[Conversation]) -> list[str]:
        """Responses of the initial policy; each data-parallel rank samples a part."""
        tokenizer, recipe = self.context.tokenizer, self.recipe
        engine = chat_engine(start, tokenizer)

        def answers(part: Sequence[Conversation], _: int) -> list[str]:
            with self.context.stage.track("sample answers", len(part), "answers") as tracker:

                def on_done(count: int) -> None:
                    heartbeat()
                    tracker.advance(count)

                completions = engine.generate(
                    [self.setup.prompt_ids(talk.messages[:-1]) for talk in part],
                    recipe.max_new_tokens,
                    recipe.temperature,
                    seed=derive_seed(recipe.seed, "sampled"),
                    keys=[talk.id for talk in part],
                    on_done=on_done,
                )
            return [tokenizer.decode(completion.content) for completion in completions]

        return [answer for part in self.setup.divided(talks, answers) for answer in part]

    def _rendered(self, pairs: Sequence[Pair]) -> list[RenderedPair]:
        """The pairs that fit into a micro-batch, as ids."""
        shape, rendered = self.setup.shape, []
        for pair in pairs:
            messages = pair.conversation.messages
            preferred, rejected = (
                render([*messages[:-1], answer], self.context.tokenizer).ids
                for answer in (messages[-1], Message("assistant", pair.rejected))
            )
            fits = max(len(preferred), len(rejected)) <= shape.time
            if fits and (shape.rows > 1 or len(preferred) + len(rejected) <= shape.time):
                rendered.append(RenderedPair(pair.kind, (preferred, rejected)))
        return rendered

    def _micro_batches(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[PreferenceBatch]:
        shape, batches = self.setup.shape, []
        for packed in pack_all(pairs, shape.rows, shape.time, shape.pad):
            last = [span.start + len(pairs[span.group][span.member]) - 1 for span in packed.spans]
            batches.append(PreferenceBatch(packed, torch.tensor(last).view(-1, 2)))
        return batches
