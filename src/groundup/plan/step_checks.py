"""Checks of align steps: does a method's recipe fit the context, the ranks and the data that it learns from?

in:  an align step, the context of its model, the ranks; lengths of the prompts that it reads
out: problems
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from groundup.align.align import AlignStep
from groundup.align.reward_scale import MIN_ANSWERS
from groundup.core.errors import GroundupError
from groundup.core.records import Prompt
from groundup.core.registry import plugin_name
from groundup.core.runtime import Runtime
from groundup.plan.problem import Problem
from groundup.tokens.chat import prompt
from groundup.tokens.tokenizer import Tokenizer

MEASURED = 512
"""Most prompts of a split whose length is measured."""
FEW_GROUPS = 5
"""Held-out documents below which an interval says little."""


@runtime_checkable
class SamplesResponses(Protocol):
    """A method that samples responses to prompts."""

    max_new_tokens: int


@runtime_checkable
class TakesMinibatches(Protocol):
    """A method whose rollouts are divided into minibatches."""

    rollout_batch_size: int
    minibatches: int


@runtime_checkable
class HasBatchRows(Protocol):
    """A method whose steps have a number of packed sequences, which the ranks divide."""

    batch_rows: int


@runtime_checkable
class HasTwoLimits(Protocol):
    """A method that ends after a number of epochs or of tokens."""

    epochs: float
    max_tokens: int


@dataclass(frozen=True)
class PromptLengths:
    """The prompts of one split: how many there are, from how many groups, and token counts of some of them."""

    count: int
    groups: int
    prompts: tuple[int, ...]
    conversations: tuple[int, ...]
    """prompt and reference answer; the prompt alone where it has none"""
    answers: tuple[str, ...] = ()

    @staticmethod
    def of(records: Sequence[Prompt], tokenizer: Tokenizer) -> "PromptLengths":
        """Measure at most `MEASURED` of the records."""
        some = records[:MEASURED]
        lengths = [len(prompt(record.messages, tokenizer)) for record in some]
        answers = [record.answer or "" for record in some]
        encoded = tokenizer.encode_batch(answers) if answers else []
        whole = [length + len(ids) + 1 for length, ids in zip(lengths, encoded, strict=True)]
        groups = len({record.group for record in records})
        return PromptLengths(len(records), groups, tuple(lengths), tuple(whole), tuple(answers))


def recipe_problems(step: AlignStep, context: int, runtime: Runtime, ranks: int) -> Iterator[Problem]:
    """Problems that need no data. context: of the step's model."""
    method, at = step.method, f"align.{step.name}"
    try:
        row = method.row_tokens(context)
    except GroundupError as error:
        yield Problem(step.name, f"{at}: {error}", True)
        return
    if isinstance(method, SamplesResponses) and method.max_new_tokens >= row:
        yield Problem(
            step.name,
            f"{at}.max_new_tokens = {method.max_new_tokens} leaves no room for a prompt in its context of {row} "
            f"tokens. Lower it to {row // 2} or less, or raise tokenize.seq_len",
            True,
        )
    if isinstance(method, TakesMinibatches) and method.rollout_batch_size < method.minibatches:
        yield Problem(
            step.name,
            f"{at}.rollout_batch_size = {method.rollout_batch_size} is less than minibatches = {method.minibatches}: "
            f"some would be empty. Set minibatches to at most {method.rollout_batch_size}",
            True,
        )
    yield from _runtime_problems(step, runtime, ranks)


def _runtime_problems(step: AlignStep, runtime: Runtime, ranks: int) -> Iterator[Problem]:
    method, engine, name = step.method, plugin_name(runtime.engine), plugin_name(step.method)
    if engine not in method.engines:
        yield Problem(
            step.name,
            f'runtime.engine.use = "{engine}" does not support the method `{name}` of align.{step.name}. Build up to '
            f"the step before it with --until, then the rest with {' or '.join(sorted(method.engines))}",
            True,
        )
    if runtime.layout == "auto":
        return
    layout = runtime.layout
    for axis in ("pipeline", "context", "expert", "tensor"):
        if getattr(layout, axis) > 1 and axis not in method.layout_axes:
            yield Problem(
                step.name,
                f"runtime.layout.{axis} = {getattr(layout, axis)}: the method `{name}` of align.{step.name} does not "
                f"support this axis. Build up to the step before it with --until, then the rest with {axis} = 1",
                True,
            )
    dp_size = ranks // (layout.tensor * layout.context * layout.pipeline)
    if isinstance(method, HasBatchRows) and dp_size > 0 and method.batch_rows % dp_size:
        yield Problem(
            step.name,
            f"align.{step.name}.batch_rows = {method.batch_rows} can't be divided among {dp_size} data-parallel ranks. "
            f"Set it to a multiple of {dp_size}",
            True,
        )


def data_problems(
    step: AlignStep, row: int, train: PromptLengths, held_out: PromptLengths
) -> Iterator[Problem]:
    """Problems of what the step learns from. row: tokens of its packed sequences."""
    if not step.method.learns_from:
        return
    if not train.count or not held_out.count:
        yield Problem(
            step.name,
            f"align.{step.name}: there are {train.count} prompts to train on and {held_out.count} held out, and it "
            "needs both. Add text with a task in [[tasks]] that can make questions of it, or [[data]]",
            True,
        )
        return
    yield from _length_problems(step, row, train, held_out)
    if step.method.output == "reward_model":
        yield from _scale_problems(step, row, held_out)
    elif held_out.groups < FEW_GROUPS:
        yield Problem(
            step.name,
            f"align.{step.name}: the {held_out.count} held-out prompts come from {held_out.groups} documents: its "
            "measurements say little. Add text",
        )


def _length_problems(
    step: AlignStep, row: int, train: PromptLengths, held_out: PromptLengths
) -> Iterator[Problem]:
    at, shortest = f"align.{step.name}", min(train.prompts)
    needed = step.method.max_new_tokens if isinstance(step.method, SamplesResponses) else 1
    reward_model = step.method.output == "reward_model"
    if needed >= row:
        return  # `recipe_problems` has said it
    for name, split in (("training", train), ("held-out", held_out)):
        lengths = split.conversations if reward_model else split.prompts
        limit = row if reward_model else row - needed
        fitting = sum(length <= limit for length in lengths)
        room = f" with max_new_tokens = {needed}" if needed > 1 and not reward_model else ""
        if fitting == 0:
            yield Problem(
                step.name,
                f"{at}: none of its {name} prompts fits into a packed sequence of {row} tokens{room} (the shortest has "
                f"{min(lengths, default=shortest)}). Raise tokenize.seq_len"
                + (", or lower max_new_tokens" if room else ""),
                True,
            )
        elif fitting < len(lengths) / 2:
            yield Problem(
                step.name,
                f"{at}: only {fitting / len(lengths):.0%} of its {name} prompts fit into a packed sequence of {row} "
                f"tokens{room}; the others are cut or left out",
            )


def _scale_problems(step: AlignStep, row: int, held_out: PromptLengths) -> Iterator[Problem]:
    """Too few different held-out answers for the scale of the rewards."""
    fitting = {
        answer
        for answer, length in zip(held_out.answers, held_out.conversations, strict=True)
        if length <= row
    }
    if 0 < len(fitting) < MIN_ANSWERS:
        yield Problem(
            step.name,
            f"align.{step.name}: {len(fitting)} different held-out answers fit into {row} tokens, and the scale of the "
            f"rewards needs at least {MIN_ANSWERS}. Add text or [[data]], or raise tokenize.seq_len",
            True,
        )


def limit_problems(step: AlignStep, train: PromptLengths) -> Iterator[Problem]:
    """`epochs` that has no effect because `max_tokens` ends the step within the first one."""
    method = step.method
    if not isinstance(method, HasTwoLimits) or method.output != "policy" or not train.conversations:
        return
    if not method.max_tokens:  # no limit
        return
    tokens = train.count * sum(train.conversations) / len(train.conversations)
    if method.max_tokens < tokens * min(1.0, method.epochs):
        yield Problem(
            step.name,
            f"align.{step.name}.epochs = {method.epochs:g} has no effect: max_tokens = {method.max_tokens:,} ends the "
            f"step after about {method.max_tokens / tokens:.2f} of one pass over {train.count:,} conversations",
        )
