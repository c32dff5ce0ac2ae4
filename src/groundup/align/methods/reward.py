"""Method: a reward model. Pairs of a better and a worse answer -> a number that says how good an answer is.

in:  a start policy, examples
out: its trunk with a score on top; held-out accuracy for each kind of pair

Ouyang et al. 2022 (arXiv:2203.02155), step 2: the loss is Bradley-Terry's. We differ in where preferences come
from (known faults, not people: see `align/pairs.py`) and in that the scores are shifted and scaled after
training, so that held-out right answers have mean 0 and standard deviation 1: a difference of 1 then means the
same to PPO whatever the run.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from groundup.align.data import PackedBatch, chosen_at, pack_all, permutation
from groundup.align.methods import Method, MethodContext, Session
from groundup.align.objectives import bradley_terry
from groundup.align.pairs import MADE, Pair, made_pairs
from groundup.align.rollouts import REWARD_FILE, Shape, last_values
from groundup.core.atomic_io import write_json
from groundup.core.errors import DataError
from groundup.core.records import Message
from groundup.core.registry import Plugin
from groundup.core.rng import derive_seed
from groundup.core.stage import ArtifactKind, Metrics
from groundup.evaluate.tasks import Example
from groundup.infer.engine import Engine
from groundup.model.checkpoint import load_decoder, save_model
from groundup.model.decoder import Decoder
from groundup.model.value_head import ValueModel
from groundup.parallel.hardware import choose_hardware, micro_batch_rows, prepare_model
from groundup.tokens.chat import prompt, render
from groundup.train.optimizers import Optimizer
from groundup.train.optimizers.muon import Muon


class Reward(Method):
    """Tell right answers from wrong ones: another object's, truncated, garbled, sampled."""

    inputs: ClassVar[Mapping[str, ArtifactKind]] = {"start": "policy"}
    output: ClassVar[ArtifactKind] = "reward_model"

    optimizer: Annotated[Optimizer, Plugin("groundup.train.optimizers")] = Muon(
        lr=0.005, adam_lr=1e-3, adam_beta1=0.9, ns_steps=3
    )
    batch_rows: int = Field(default=4, ge=1, description="rows of a step; a row is the model's context")
    epochs: float = Field(default=1.0, gt=0, description="how often every pair is seen, at most")
    max_tokens: int = Field(default=800_000, ge=1, description="tokens trained on, padding included, at most")
    other: int = Field(default=4000, ge=0, description="pairs with an answer about another object")
    truncated: int = Field(default=1200, ge=0, description="pairs with a truncated answer")
    garbled: int = Field(default=1800, ge=0, description="pairs with a garbled answer")
    sampled: int = Field(default=800, ge=0, description="pairs with an answer of the start model")
    held_out: int = Field(default=160, ge=1, description="pairs of each kind to measure accuracy on")
    margin: float = Field(default=0.0, ge=0, description="by how much the better answer should win")
    max_new_tokens: int = Field(default=96, ge=1, description="longest sampled answer")
    temperature: float = Field(default=1.0, gt=0, description="of the sampled answers")

    def prepare(self, given: MethodContext) -> Session:
        """Make the pairs, sampling the start model for some."""
        return _Judging(self, given)


@dataclass(frozen=True)
class _Batch:
    """A micro-batch of pairs. `total`: pairs in the whole step."""

    packed: PackedBatch
    ends: Tensor
    """flat position of the last token, [pairs, 2]: better, worse"""
    total: float = 1.0


@dataclass(frozen=True)
class _Rendered:
    """A pair as ids: the better conversation, the worse one."""

    kind: str
    ids: tuple[list[int], list[int]]


class _Judging:
    """The session."""

    label = "reward"
    depends_on_weights = False
    boundary = 1

    def __init__(self, recipe: Reward, given: MethodContext) -> None:
        self.recipe, self.given, tokenizer = recipe, given, given.tokenizer
        self.hardware = choose_hardware(given.runtime, recipe.precision)
        start = load_decoder(given.reads["start"], self.hardware.device, self.hardware.dtype)
        self.d_model = start.config.d_model
        rows = micro_batch_rows(
            given.runtime, start.config, start.config.max_seq_len, recipe.batch_rows, self.hardware.device
        )
        self.shape = Shape(rows, start.config.max_seq_len, tokenizer.pad)
        pairs, held_out = self._all_pairs(start)
        order = permutation(len(pairs), recipe.seed, "reward order")
        self.micro = self._micro_batches([pairs[i].ids for i in order])
        self.held_out = held_out
        self.model = ValueModel(start.config)
        self.model.init_from_decoder(start, derive_seed(recipe.seed, "score"))
        prepare_model(self.model, self.hardware)
        self.per_step = recipe.batch_rows // rows
        self.tokens_per_step = recipe.batch_rows * self.shape.time
        wanted = math.ceil(recipe.epochs * len(self.micro) / self.per_step)
        self.steps = max(1, min(wanted, recipe.max_tokens // self.tokens_per_step))

    def batches(self, step: int) -> Sequence[_Batch]:
        taken = chosen_at(step, len(self.micro), self.per_step, self.recipe.seed, "reward batches")
        found = [self.micro[i] for i in taken]
        total = float(sum(len(batch.ends) for batch in found))
        return [replace(batch, total=total) for batch in found]

    def loss(self, model: nn.Module, batch: _Batch) -> tuple[Tensor, dict[str, Any]]:
        packed = batch.packed.to(self.hardware.device)
        values: Float[Tensor, "rows time"] = self.model.values(packed.ids, packed.segments)
        better, worse = values.flatten()[batch.ends.to(values.device)].unbind(dim=1)
        loss = bradley_terry(better, worse, self.recipe.margin).sum() / batch.total
        return loss, {"accuracy": (better > worse).float().sum() / batch.total}

    def finish(self) -> Metrics:
        flat = [ids for pair in self.held_out for ids in pair.ids]
        scores = last_values(self.model, flat, self.shape).view(-1, 2)
        better, worse = scores.unbind(dim=1)
        mean, std = float(better.mean()), max(float(better.std(unbiased=False)), 1e-6)
        folder = self.given.out.path
        save_model(folder, self.model, self.given.tokenizer)
        write_json(folder / REWARD_FILE, {"mean": mean, "std": std})
        right = (better > worse).float()
        kinds = [pair.kind for pair in self.held_out]
        return {
            "accuracy": float(right.mean()),
            "accuracy_by_kind": {
                kind: float(right[[i for i, one in enumerate(kinds) if one == kind]].mean())
                for kind in dict.fromkeys(kinds)
            },
            "loss": float(bradley_terry(better, worse).mean()),
            "margin_of_right_answers": float((better - worse).mean() / std),
            "pairs": sum(len(batch.ends) for batch in self.micro),
            "held_out_pairs": len(self.held_out),
        }

    def _all_pairs(self, start: Decoder) -> tuple[list[_Rendered], list[_Rendered]]:
        """Pairs to learn from and pairs to measure on."""
        recipe, sampled = self.recipe, self._sampled(start)
        train = [pair for kind in MADE for pair in self._made(self.given.train, kind, getattr(recipe, kind))]
        held_out = [pair for kind in MADE for pair in self._made(self.given.held_out, kind, recipe.held_out)]
        train, held_out = train + sampled["train"], held_out + sampled["held_out"]
        if not train or not held_out:
            raise DataError(
                f"reward: of {len(self.given.train)} examples no pair of answers fits into the model's context of "
                f"{self.shape.time} tokens. Give more text, or raise tokenize.seq_len"
            )
        return train, held_out

    def _made(self, examples: Sequence[Example], kind: str, count: int) -> list[_Rendered]:
        order = permutation(len(examples), self.recipe.seed, "pairs", kind)
        return self._rendered(made_pairs([examples[i] for i in order], kind, count, self.recipe.seed))

    def _sampled(self, start: Decoder) -> dict[str, list[_Rendered]]:
        """Pairs with the start model's own answers; kept on disk, since they take long to make."""
        path = self.given.out.temporary / "sampled.json"
        chosen = {
            "train": self._to_sample(self.given.train, self.recipe.sampled),
            "held_out": self._to_sample(self.given.held_out, min(self.recipe.held_out, self.recipe.sampled)),
        }
        if not path.exists():
            write_json(path, {part: self._answers(start, some) for part, some in chosen.items()})
        said = json.loads(path.read_text(encoding="utf-8"))
        return {
            part: self._rendered(
                [
                    Pair(one, text, "sampled")
                    for one, text in zip(some, said[part], strict=True)
                    if text != one.answer
                ]
            )
            for part, some in chosen.items()
        }

    def _to_sample(self, examples: Sequence[Example], count: int) -> list[Example]:
        order = permutation(len(examples), self.recipe.seed, "pairs", "sampled")
        fitting = (examples[i] for i in order if len(_prompt(examples[i], self.given)) < self.shape.time)
        return list(islice(fitting, count))

    def _answers(self, start: Decoder, examples: Sequence[Example]) -> list[str]:
        tokenizer, recipe = self.given.tokenizer, self.recipe
        stop = {tokenizer.end_of_turn, tokenizer.eos, tokenizer.bos}
        engine = Engine(start, stop, tokenizer.pad, self.shape.time)
        prompts = [_prompt(example, self.given) for example in examples]
        with self.given.out.track("sample answers", len(prompts), "answers") as tracker:
            done = engine.generate(
                prompts,
                recipe.max_new_tokens,
                recipe.temperature,
                seed=derive_seed(recipe.seed, "sampled"),
                keys=[example.id for example in examples],
                on_done=tracker.advance,
            )
        return [tokenizer.decode(completion.content) for completion in done]

    def _rendered(self, pairs: Sequence[Pair]) -> list[_Rendered]:
        """Those that fit into a micro-batch, as ids."""
        found = []
        for pair in pairs:
            question = pair.example.conversation().messages[:-1]
            better, worse = (
                render([*question, Message("assistant", answer)], self.given.tokenizer).ids
                for answer in (pair.example.answer, pair.rejected)
            )
            fits = max(len(better), len(worse)) <= self.shape.time
            if fits and (self.shape.rows > 1 or len(better) + len(worse) <= self.shape.time):
                found.append(_Rendered(pair.kind, (better, worse)))
        return found

    def _micro_batches(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[_Batch]:
        found = []
        for packed in pack_all(pairs, self.shape.rows, self.shape.time, self.shape.pad):
            ends = [place.start + len(pairs[place.group][place.member]) - 1 for place in packed.places]
            found.append(_Batch(packed, torch.tensor(ends).view(-1, 2)))
        return found


def _prompt(example: Example, given: MethodContext) -> list[int]:
    return prompt(example.conversation().messages[:-1], given.tokenizer)
