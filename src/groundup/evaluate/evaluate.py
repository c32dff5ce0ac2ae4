"""Stage: how good is it?

in:  validation rows, documents, the base model and the final chat model
out: bits per byte of both, marks of the chat model's answers with intervals, samples.json

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
from groundup.core.registry import Plugin, plugin_name
from groundup.core.rng import derive_seed
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, Metrics, StageContext, stage
from groundup.evaluate.examples import collect, split
from groundup.evaluate.score import GradedAnswer, chat_engine, graded
from groundup.evaluate.statistics import bootstrap
from groundup.evaluate.tasks import Example, Task
from groundup.model.checkpoint import load_decoder
from groundup.model.decoder import Decoder
from groundup.parallel.hardware import Precision, choose_hardware, prepare_model
from groundup.tokens.shards import PackedDataset
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.validate import bits_per_byte, token_loss


class Evaluate(Recipe):
    """What is measured, and on how much."""

    tasks: tuple[Annotated[Task, Plugin("groundup.evaluate.tasks")], ...] = Field(
        default=(), description="filled in from the blueprint's [[tasks]]"
    )
    examples: int = Field(default=200, ge=1, description="held-out questions asked")
    max_new_tokens: int = Field(default=96, ge=1, description="longest answer")
    validation_rows: int = Field(default=256, ge=1, description="most rows scored for bits per byte")
    familiar: int = Field(default=4, ge=0, description="questions from the training side among the samples")
    continuations: int = Field(default=3, ge=0, description="texts that the base model continues")
    precision: Precision = "auto"


@stage(version=1, kind="scores")
def evaluate(
    recipe: Evaluate,
    runtime: Runtime,
    out: StageContext,
    tokens: Artifact,
    documents: Artifact,
    base: Artifact,
    chat: Artifact,
) -> Metrics:
    """Score both models on held-out text, and the chat model on held-out questions."""
    vocabulary = Tokenizer.load(chat.path)
    hardware = choose_hardware(runtime, recipe.precision)
    base_model, chat_model = (load_decoder(item.path) for item in (base, chat))
    for model in (base_model, chat_model):
        prepare_model(model, hardware)
    rows = PackedDataset(tokens.path / "validation.npy")
    metrics: Metrics = {
        "base_bpb": bits_per_byte(partial(token_loss, base_model), rows, vocabulary, recipe.validation_rows),
        "chat_bpb": bits_per_byte(partial(token_loss, chat_model), rows, vocabulary, recipe.validation_rows),
    }
    tasks: dict[str, Task] = {plugin_name(task): task for task in recipe.tasks}  # type: ignore[arg-type]
    known, held_out = split(collect(recipe.tasks, documents.path))
    asked = held_out[: recipe.examples]
    if asked:
        found = graded(chat_model, vocabulary, asked, tasks, recipe.max_new_tokens, out, "held-out questions")
        metrics |= _marks(found) | {"baseline_chrf": _baseline(asked, tasks)}
        seen = graded(
            chat_model, vocabulary, known[: recipe.familiar], tasks, recipe.max_new_tokens, out, "samples"
        )
        write_json(
            out.file("samples.json"),
            [_sample(item, True) for item in found] + [_sample(i, False) for i in seen],
        )
    write_json(
        out.file("continuations.json"), _continuations(base_model, rows, vocabulary, recipe.continuations)
    )
    return metrics


def _marks(found: Sequence[GradedAnswer]) -> Metrics:
    """Means over all questions with bootstrap intervals clustered by document, and chrF by kind of question."""
    by_name: dict[str, list[tuple[float, str]]] = defaultdict(list)
    by_kind: dict[str, list[float]] = defaultdict(list)
    for item in found:
        by_kind[item.example.kind].append(item.marks["chrf"])
        for name, value in item.marks.items():
            by_name[name].append((value, item.example.group))
    metrics: Metrics = {"examples": len(found)}
    for name, scored in by_name.items():
        values, documents = zip(*scored, strict=True)
        interval = bootstrap(values, clusters=documents)
        label = "chat_chrf" if name == "chrf" else name
        metrics |= {label: interval.mean, f"{label}_interval": interval.bounds}
    kinds = {kind: sum(values) / len(values) for kind, values in sorted(by_kind.items())}
    return metrics | {"chrf_by_kind": kinds}


def _baseline(asked: Sequence[Example], tasks: dict[str, Task]) -> float:
    """chrF of answering with the true answer to another question of the same kind: form without facts."""
    by_kind: dict[str, list[Example]] = defaultdict(list)
    for example in asked:
        by_kind[example.kind].append(example)
    scores = []
    for example in asked:
        others = [other for other in by_kind[example.kind] if other.subject != example.subject]
        other = others[derive_seed(example.id, "baseline") % len(others)].answer if others else ""
        scores.append(tasks[example.task].grade(example, other)["chrf"])
    return sum(scores) / len(scores)


def _sample(item: GradedAnswer, held_out: bool) -> dict[str, Any]:
    example = item.example
    said = {"kind": example.kind, "question": example.question, "truth": example.answer, "chat": item.answer}
    return said | {"chrf": item.marks["chrf"], "held_out": held_out}


def _continuations(
    model: Decoder, rows: PackedDataset, tokenizer: Tokenizer, count: int
) -> list[dict[str, str]]:
    """Beginnings of validation documents, and how the base model goes on."""
    engine = chat_engine(model, tokenizer)
    starts = []
    for index in range(len(rows)):
        row = rows[[index]][0]
        begins = [
            at for at, token in enumerate(row.tolist()) if token == tokenizer.bos and at + 32 < len(row)
        ]
        if begins:
            starts.append(row[begins[0] : begins[0] + 32].tolist())
        if len(starts) == count:
            break
    starts = [ids for ids in starts if len(ids) < model.config.max_seq_len]
    found = engine.generate(starts, max_new_tokens=64, temperature=0.0) if starts else []
    return [
        {"beginning": tokenizer.decode(ids), "continuation": tokenizer.decode(done.content)}
        for ids, done in zip(starts, found, strict=True)
    ]
