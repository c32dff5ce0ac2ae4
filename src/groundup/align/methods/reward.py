"""Method: reward model. Rankings of responses -> a score of responses.

in:  an initial policy; rankings by people, and conversations, whose answers are paired with faulty ones
out: its backbone with a score head; held-out accuracy by source, beside chance and the length of the responses

Ouyang et al. 2022 (arXiv:2203.02155), step 2: the loss is Bradley-Terry's on all pairs of a ranking, which are together
in one step. We differ in that known faults (see `align/pairs.py`) are a source of preferences beside people, and in
that the scores are normalised after training, so that held-out best responses have mean 0 and standard deviation 1
(`align/reward_scale.py`): a difference of 1 then means the same to PPO in every run.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import accumulate, islice
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from groundup.align.methods import Method, MethodContext, Session
from groundup.align.objectives import bradley_terry
from groundup.align.packing import epoch_indices, permutation
from groundup.align.pairs import MADE, Pair, made_pairs
from groundup.align.ranking_batches import (
    RankingBatch,
    RankingLoss,
    RenderedRanking,
    fitting,
    ranking_batches,
    ranking_loss,
    rendered,
    two_responses,
)
from groundup.align.reward_report import reward_report, scored_pairs
from groundup.align.reward_scale import check_answers, reward_scale
from groundup.align.rollouts import REWARD_FILE, last_values
from groundup.align.session import SessionSetup
from groundup.core.atomic_io import write_json
from groundup.core.errors import DataError
from groundup.core.records import Conversation, Ranking
from groundup.core.registry import Plugin
from groundup.core.rng import derive_seed
from groundup.core.stage import ArtifactKind, Metrics
from groundup.evaluate.alignment_data import RecordKind
from groundup.evaluate.score import chat_engine
from groundup.model.checkpoint import save_model
from groundup.model.decoder import Decoder
from groundup.model.value_head import ValueModel
from groundup.parallel.context import heartbeat
from groundup.train.loop import TrainSpec
from groundup.train.optimizers import Optimizer
from groundup.train.optimizers.muon import Muon


class Reward(Method):
    """A reward model that prefers what people ranked higher, and right answers to faulty ones."""

    version: ClassVar[int] = 2
    inputs: ClassVar[Mapping[str, ArtifactKind]] = {"start": "policy"}
    learns_from: ClassVar[frozenset[RecordKind]] = frozenset({"rankings", "conversations"})
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
    loss: RankingLoss = Field(
        default="bradley_terry",
        description="bradley_terry: all pairs of a ranking; plackett_luce: the whole order of a ranking",
    )
    margin: float = Field(
        default=0.0, ge=0, description="margin by which the preferred answer's score should be higher"
    )
    margin_scale: float = Field(
        default=0.0,
        ge=0,
        description="factor of the margins that the rankings have, added to `margin`; 0 = not used",
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=0.5, description="assumed probability that a preference is wrong"
    )
    center_coef: float = Field(
        default=0.0,
        ge=0,
        description="coefficient of the squared sum of a pair's scores, which centres them at 0",
    )
    max_new_tokens: int = Field(default=96, ge=1, description="maximum tokens of a sampled answer")
    temperature: float = Field(default=1.0, gt=0, description="sampling temperature of the sampled answers")

    def without_effect(self) -> dict[str, str]:
        """See `Strict`."""
        reason = "sampled = 0: no answer is sampled"
        return {} if self.sampled else dict.fromkeys(("max_new_tokens", "temperature"), reason)

    def prepare(self, context: MethodContext) -> Session:
        """Make the pairs, some of them with answers sampled from the initial policy."""
        return RewardSession(self, context)


class RewardSession:
    """A training of a reward model."""

    def __init__(self, recipe: Reward, context: MethodContext) -> None:
        self.recipe, self.context = recipe, context
        self.setup = SessionSetup.create(recipe, context, recipe.batch_rows)
        self.train_talks, self.held_out_talks = self._talks()
        start = self.setup.start_policy()
        model = ValueModel(start.config)
        model.to(self.setup.hardware.device).init_from_decoder(start, derive_seed(recipe.seed, "score"))
        self.trained = self.setup.trained(model, self.loss)
        self.train, self.held_out = self._all_rankings(start)
        order = permutation(len(self.train), recipe.seed, "reward order")
        ordered = [self.train[i] for i in order]
        self.micro_batches = ranking_batches(ordered, self.setup.shape, recipe.margin)
        self.per_step = recipe.batch_rows // self.setup.shape.rows
        self.tokens_per_step = recipe.batch_rows * self.setup.shape.time
        self.budget = self.setup.budget(recipe, "pairs", len(self.micro_batches))

    def train_spec(self) -> TrainSpec:
        """See `Session`."""
        return self.setup.train_spec(
            self.trained.engine, self.batches, self.budget.steps, self.tokens_per_step
        )

    def batches(self, step: int) -> list[RankingBatch]:
        """This rank's micro-batches of a step, each with the number of rankings of the whole step."""
        chosen = epoch_indices(
            step, len(self.micro_batches), self.per_step, self.recipe.seed, "reward batches"
        )
        batches = [self.micro_batches[i] for i in chosen]
        total = float(sum(len(batch.ranks) for batch in batches))
        local_batches = batches[self.setup.parallel.dp_slice(len(batches))]
        return [replace(batch, total=total) for batch in local_batches]

    def loss(self, model: ValueModel, batch: RankingBatch) -> tuple[Tensor, dict[str, Any]]:
        """A micro-batch's part of the step's mean loss per ranking, and of its accuracy."""
        recipe, batch = self.recipe, batch.to(self.setup.hardware.device)
        scores = model.values(batch.packed.ids, batch.packed.segments).flatten()[batch.last_positions]
        loss, accuracy = ranking_loss(scores, batch, recipe.loss, recipe.label_smoothing, recipe.center_coef)
        return loss, {"accuracy": accuracy}

    def finish(self) -> Metrics:
        """See `Session`."""
        model: ValueModel = self.trained.whole()
        scores = self._held_out_scores(model)
        best = [item.ranks.index(min(item.ranks)) for item in self.held_out]
        preferred = [row[i] for row, i in zip(scores, best, strict=True)]
        others = [score for row, i in zip(scores, best, strict=True) for n, score in enumerate(row) if n != i]
        answers = [item.best_ids for item in self.held_out]
        scale = reward_scale(torch.tensor(preferred), torch.tensor(others), answers)
        if self.setup.parallel.is_rank0:
            folder = self.context.stage.path
            save_model(folder, model, self.context.tokenizer)
            write_json(folder / REWARD_FILE, asdict(scale))
        pairs = scored_pairs(self.held_out, scores)
        differences = torch.tensor([pair.difference for pair in pairs])
        return reward_report(self.train, pairs, self.recipe.seed, self.context.stage.info) | {
            "loss": float(bradley_terry(differences, torch.zeros_like(differences)).mean()),
            "margin_of_right_answers": float(differences.mean() / scale.std),
            "pairs": sum(len(batch.better) for batch in self.micro_batches),
            "rankings": len(self.train),
            "held_out_pairs": len(pairs),
            "tokens": self.budget.steps * self.tokens_per_step,
            **self.budget.metrics(),
        }

    def _held_out_scores(self, model: ValueModel) -> list[list[float]]:
        """Scores of each held-out ranking's responses; each data-parallel rank computes a part."""

        def scores(rankings: Sequence[RenderedRanking], _: int) -> Tensor:
            return last_values(model, [ids for ranking in rankings for ids in ranking.ids], self.setup.shape)

        values = torch.cat(self.setup.divided(self.held_out, scores)).tolist()
        ends = list(accumulate(len(ranking.ids) for ranking in self.held_out))
        return [values[end - len(item.ids) : end] for item, end in zip(self.held_out, ends, strict=True)]

    def _talks(self) -> tuple[list[Conversation], list[Conversation]]:
        """Conversations to train on, and held out; none where the data has only rankings."""
        data = self.context.data
        if data.rankings("train") and not data.conversations("train"):
            return [], []
        train, held_out = self.context.both_splits("conversations")
        return train, held_out

    def _all_rankings(self, start: Decoder) -> tuple[list[RenderedRanking], list[RenderedRanking]]:
        """Rankings to train on, and to measure accuracy on: by people, with known faults, with sampled answers."""
        recipe, sampled, data = self.recipe, self._sampled_pairs(start), self.context.data
        counts = {kind: getattr(recipe, kind) for kind in MADE}
        train = self._made_pairs(self.train_talks, counts) + sampled["train"]
        held_out = (
            self._made_pairs(self.held_out_talks, dict.fromkeys(MADE, recipe.held_out)) + sampled["held_out"]
        )
        if data.rankings("train"):
            ranked = self.context.both_splits("rankings")
            train, held_out = (
                made + self._ranked(part) for made, part in zip((train, held_out), ranked, strict=True)
            )
        if not train or not any(target == 1 for item in held_out for _, _, target in item.pairs):
            count = len(self.train_talks) + len(data.rankings("train"))
            raise DataError(
                f"reward: of {count} conversations and rankings none has responses that fit into a packed sequence of "
                f"{self.setup.shape.time} tokens, in training and held out. Give more data, or raise the step's "
                "seq_len (limit: the model's context)"
            )
        check_answers(len({item.best_ids for item in held_out}))
        return train, held_out

    def _ranked(self, rankings: Sequence[Ranking]) -> list[RenderedRanking]:
        """The rankings of the data that fit into a micro-batch; how many do not is printed."""
        made = [
            rendered(
                item.source, item, self.context.tokenizer, self.recipe.margin_scale * (item.margin or 0.0)
            )
            for item in rankings
        ]
        kept = fitting(made, self.setup.shape)
        if len(kept) < len(made):
            self.context.stage.info(
                f"reward: {len(made) - len(kept)} of {len(made)} rankings are left out: their responses do not fit "
                f"into a micro-batch of {self.setup.shape.rows} x {self.setup.shape.time} tokens"
            )
        return kept

    def _made_pairs(self, talks: Sequence[Conversation], counts: Mapping[str, int]) -> list[RenderedRanking]:
        """Pairs with known faults: `counts` of each kind."""
        pairs: list[Pair] = []
        for kind, count in counts.items():
            order = permutation(len(talks), self.recipe.seed, "pairs", kind)
            pairs += made_pairs([talks[i] for i in order], kind, count, self.recipe.seed)
        return self._rendered(pairs)

    def _sampled_pairs(self, start: Decoder) -> dict[str, list[RenderedRanking]]:
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

    def _rendered(self, pairs: Sequence[Pair]) -> list[RenderedRanking]:
        """The pairs that fit into a micro-batch, as ids."""
        made = []
        for pair in pairs:
            *before, answer = pair.conversation.messages
            ranking = two_responses(tuple(before), answer.content, pair.rejected, pair.conversation.group)
            made.append(rendered(pair.kind, ranking, self.context.tokenizer))
        return fitting(made, self.setup.shape)
