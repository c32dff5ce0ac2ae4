"""Stage `evaluate`: scores of the base model and of the chat model.

in:  validation sequences, documents, the base model and the final policy
out: bits per byte of both; scores of the chat model's answers beside those of rules without a model, held-out and
     taught questions apart; samples.json, continuations.json

Held-out questions come from documents that were held out of fine-tuning; unless `tokenize` keeps a smaller share for
validation, no model has read them at all. Taught questions are those of the training documents.
"""

from functools import partial
from typing import Annotated, Any

from pydantic import Field

from groundup.core.atomic_io import write_json
from groundup.core.recipe import Recipe
from groundup.core.registry import Plugin
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, Metrics, StageContext, stage
from groundup.evaluate.baselines import prepare_baselines
from groundup.evaluate.comparison import compare
from groundup.evaluate.examples import collect, split, tasks_by_name
from groundup.evaluate.score import GradedAnswer, answer_and_grade, chat_engine
from groundup.evaluate.tasks import Task
from groundup.evaluate.verdict_text import QUESTION_SETS
from groundup.model.checkpoint import load_decoder
from groundup.model.decoder import Decoder
from groundup.parallel.hardware import Precision, choose_hardware, prepare_model
from groundup.text.documents import read_documents
from groundup.text.retrieval.corpus_passages import cut_passages
from groundup.text.retrieval.retriever import Retriever, source_of, supporting_passage
from groundup.tokens.shards import PackedDataset
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.validate import bits_per_byte, token_loss

WITHOUT_PASSAGES = "_without_passages"


class Evaluate(Recipe):
    """Held-out questions and text that both models are scored on."""

    tasks: tuple[Annotated[Task, Plugin("groundup.evaluate.tasks")], ...] = Field(
        default=(), description="filled in from the blueprint's [[tasks]]"
    )
    passages: int = Field(
        default=0, ge=0, description="passages in a prompt; filled in from the blueprint's [[data]]"
    )
    examples: int = Field(default=200, ge=1, description="number of held-out questions")
    max_new_tokens: int = Field(default=96, ge=1, description="longest answer in tokens")
    validation_rows: int = Field(
        default=256, ge=1, description="most packed sequences scored for bits per byte"
    )
    taught_examples: int = Field(
        default=200, ge=0, description="number of taught questions: those of the training documents"
    )
    continuations: int = Field(
        default=3, ge=0, description="beginnings of validation documents that the base model continues"
    )
    precision: Precision = Field(
        default="auto",
        description="dtype of the computation; auto = bf16 where the hardware is fast at it, else fp32",
    )


@stage(version=2, kind="scores", headline=("base_bpb", "chat_bpb", "chat_chrf", "chat_exact"))
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
    metrics |= _answer_questions(recipe, context, documents, chat_model, tokenizer)
    continuations = _continuations(base_model, rows, tokenizer, recipe.continuations)
    write_json(context.file("continuations.json"), continuations)
    return metrics


def _answer_questions(
    recipe: Evaluate, context: StageContext, documents: Artifact, model: Decoder, tokenizer: Tokenizer
) -> Metrics:
    """Scores of the answers to held-out and to taught questions; none without questions."""
    taught, held_out = split(collect(recipe.tasks, documents.path))
    if not held_out:
        return {}
    tasks = tasks_by_name(recipe.tasks)
    retriever = Retriever(cut_passages(read_documents(documents.path)))
    baselines = prepare_baselines(taught, retriever)
    questions_by_set = {"held_out": held_out[: recipe.examples], "taught": taught[: recipe.taught_examples]}
    tables, samples = {}, []
    for name, passages in _question_sets(recipe.passages):
        questions = questions_by_set[name.removesuffix(WITHOUT_PASSAGES)]
        if questions:
            graded = answer_and_grade(
                model,
                tokenizer,
                questions,
                tasks,
                recipe.max_new_tokens,
                context,
                QUESTION_SETS[name],
                retriever,
                passages,
            )
            tables[name] = compare(graded, baselines, tasks)
            if not name.endswith(WITHOUT_PASSAGES):
                samples += [_sample(item, name == "held_out") for item in graded]
    write_json(context.file("samples.json"), samples)
    scores = tables["held_out"]["scores"]
    headline = {f"chat_{name}": scores[name]["model"] for name in ("chrf", "exact") if name in scores}
    return headline | tables


def _question_sets(passages: int) -> list[tuple[str, int]]:
    """The sets of questions and the passages in their prompts; of a grounded model also without passages."""
    names = ("held_out", "taught")
    without = [(f"{name}{WITHOUT_PASSAGES}", 0) for name in names] if passages else []
    return [*((name, passages) for name in names), *without]


def _sample(item: GradedAnswer, held_out: bool) -> dict[str, Any]:
    example, source = item.example, supporting_passage(item.answer, item.passages)
    return {
        "kind": example.kind,
        "question": example.question,
        "reference": example.answer,
        "chat": item.answer,
        "chrf": item.scores["chrf"],
        "held_out": held_out,
        "source": None if source is None else source_of(source),
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
