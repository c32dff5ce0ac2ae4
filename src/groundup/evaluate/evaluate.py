"""Stage `evaluate`: scores of the base model and of the chat model.

in:  validation sequences, documents, the base model and the final policy
out: bits per byte of both, scores of the chat model's answers with intervals, samples.json, continuations.json

The questions come from documents that were held out of fine-tuning; unless `tokenize` keeps a smaller share for
validation, no model has read them at all.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from groundup.core.atomic_io import write_json
from groundup.core.recipe import Recipe
from groundup.core.registry import Plugin
from groundup.core.rng import derive_seed
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, Metrics, StageContext, stage
from groundup.evaluate.examples import collect, split, tasks_by_name
from groundup.evaluate.score import GradedAnswer, answer_and_grade, chat_engine, grade
from groundup.evaluate.statistics import bootstrap
from groundup.evaluate.tasks import Example, Task
from groundup.model.checkpoint import load_decoder
from groundup.model.decoder import Decoder
from groundup.parallel.hardware import Precision, choose_hardware, prepare_model
from groundup.tokens.shards import PackedDataset
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.validate import bits_per_byte, token_loss


class Evaluate(Recipe):
    """Held-out questions and text that both models are scored on."""

    tasks: tuple[Annotated[Task, Plugin("groundup.evaluate.tasks")], ...] = Field(
        default=(), description="filled in from the blueprint's [[tasks]]"
    )
    examples: int = Field(default=200, ge=1, description="number of held-out questions")
    max_new_tokens: int = Field(default=96, ge=1, description="longest answer in tokens")
    validation_rows: int = Field(
        default=256, ge=1, description="most packed sequences scored for bits per byte"
    )
    train_samples: int = Field(
        default=4, ge=0, description="questions of training documents that are answered for samples.json"
    )
    continuations: int = Field(
        default=3, ge=0, description="beginnings of validation documents that the base model continues"
    )
    precision: Precision = Field(
        default="auto",
        description="dtype of the computation; auto = bf16 where the hardware is fast at it, else fp32",
    )


@stage(version=1, kind="scores", headline=("base_bpb", "chat_bpb", "chat_chrf"))
def evaluate(
    recipe: Evaluate,
    runtime: Runtime,
    context: StageContext,
    tokens: Artifact,
    documents: Artifact,
    base: Artifact,
    policy: Artifact,
) -> Metrics:
    """Score both models on held-out text, and the final policy on held-out questions."""
    tokenizer = Tokenizer.load(policy.path)
    hardware = choose_hardware(runtime, recipe.precision)
    base_model, chat_model = (load_decoder(item.path) for item in (base, policy))
    for model in (base_model, chat_model):
        prepare_model(model, hardware)
    rows = PackedDataset(tokens.path / "validation.npy")
    metrics: Metrics = {
        "base_bpb": bits_per_byte(partial(token_loss, base_model), rows, tokenizer, recipe.validation_rows),
        "chat_bpb": bits_per_byte(partial(token_loss, chat_model), rows, tokenizer, recipe.validation_rows),
    }
    train_examples, held_out = split(collect(recipe.tasks, documents.path))
    questions = held_out[: recipe.examples]
    if questions:
        tasks = tasks_by_name(recipe.tasks)
        answer = partial(
            answer_and_grade,
            chat_model,
            tokenizer,
            tasks=tasks,
            max_new_tokens=recipe.max_new_tokens,
            context=context,
        )
        graded = answer(questions, label="held-out questions")
        metrics |= _scores(graded) | {"baseline_chrf": _baseline(questions, tasks)}
        train_graded = answer(train_examples[: recipe.train_samples], label="samples")
        samples = [_sample(item, True) for item in graded] + [_sample(item, False) for item in train_graded]
        write_json(context.file("samples.json"), samples)
    continuations = _continuations(base_model, rows, tokenizer, recipe.continuations)
    write_json(context.file("continuations.json"), continuations)
    return metrics


def _scores(graded: Sequence[GradedAnswer]) -> Metrics:
    """Means over all questions with bootstrap intervals clustered by document, and chrF by kind of question."""
    values: dict[str, list[float]] = defaultdict(list)
    documents: dict[str, list[str]] = defaultdict(list)
    by_kind: dict[str, list[float]] = defaultdict(list)
    for item in graded:
        by_kind[item.example.kind].append(item.scores["chrf"])
        for name, value in item.scores.items():
            values[name].append(value)
            documents[name].append(item.example.group)
    metrics: Metrics = {"examples": len(graded)}
    for name in values:
        interval = bootstrap(values[name], clusters=documents[name])
        label = "chat_chrf" if name == "chrf" else name
        metrics |= {label: interval.mean, f"{label}_interval": interval.bounds}
    kinds = {kind: sum(scores) / len(scores) for kind, scores in sorted(by_kind.items())}
    return metrics | {"chrf_by_kind": kinds}


def _baseline(questions: Sequence[Example], tasks: dict[str, Task]) -> float:
    """chrF of the reference answer to another question of the same kind: the right form without the facts."""
    by_kind: dict[str, list[Example]] = defaultdict(list)
    for example in questions:
        by_kind[example.kind].append(example)
    scores = []
    for example in questions:
        others = [other for other in by_kind[example.kind] if other.subject != example.subject]
        answer = others[derive_seed(example.id, "baseline") % len(others)].answer if others else ""
        scores.append(grade(tasks[example.task], example, answer)["chrf"])
    return sum(scores) / len(scores)


def _sample(item: GradedAnswer, held_out: bool) -> dict[str, Any]:
    example = item.example
    return {
        "kind": example.kind,
        "question": example.question,
        "reference": example.answer,
        "chat": item.answer,
        "chrf": item.scores["chrf"],
        "held_out": held_out,
    }


def _continuations(
    model: Decoder, rows: PackedDataset, tokenizer: Tokenizer, count: int
) -> list[dict[str, str]]:
    """Beginnings of validation documents with the base model's continuations."""
    engine = chat_engine(model, tokenizer)
    starts = []
    for index in range(len(rows)):
        row = rows[[index]][0]
        positions = [
            at for at, token in enumerate(row.tolist()) if token == tokenizer.bos and at + 32 < len(row)
        ]
        if positions:
            starts.append(row[positions[0] : positions[0] + 32].tolist())
        if len(starts) == count:
            break
    starts = [ids for ids in starts if len(ids) < model.config.max_seq_len]
    completions = engine.generate(starts, max_new_tokens=64, temperature=0.0) if starts else []
    return [
        {"beginning": tokenizer.decode(ids), "continuation": tokenizer.decode(completion.content)}
        for ids, completion in zip(starts, completions, strict=True)
    ]
