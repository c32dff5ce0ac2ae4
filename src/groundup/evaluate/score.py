"""A chat model -> answers to examples, with their scores.

in:  a decoder with its tokenizer, examples
out: one greedy answer per example, with a score for each metric of the example's task
"""

from collections.abc import Sequence
from dataclasses import dataclass

from groundup.core.errors import DataError
from groundup.core.stage import StageContext
from groundup.evaluate.tasks import Example, Task
from groundup.infer.engine import Engine
from groundup.model.decoder import Decoder
from groundup.text.retrieval.corpus_passages import Passage
from groundup.text.retrieval.retriever import Retriever, with_passages
from groundup.tokens.chat import prompt
from groundup.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class GradedAnswer:
    """An example, the model's answer, its scores, and the passages in its prompt."""

    example: Example
    answer: str
    scores: dict[str, float]
    passages: tuple[Passage, ...] = ()


def chat_engine(model: Decoder, tokenizer: Tokenizer) -> Engine:
    """An engine that stops at the end of a turn or of a text."""
    return Engine(model, set(tokenizer.stop_ids), tokenizer.pad, model.config.max_seq_len)


def answer_and_grade(
    model: Decoder,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    tasks: dict[str, Task],
    max_new_tokens: int,
    context: StageContext,
    label: str,
    retriever: Retriever | None = None,
    passages: int = 0,
) -> list[GradedAnswer]:
    """Answer and grade every example; a question too long for the model's context gets an empty answer.

    passages: how many passages of `retriever` go into each prompt.
    """
    retrieved = [
        retriever.find([example.question], passages) if retriever and passages else [] for example in examples
    ]
    prompts = [
        prompt(with_passages(example.prompt_messages(), items), tokenizer)
        for example, items in zip(examples, retrieved, strict=True)
    ]
    fitting = [index for index, ids in enumerate(prompts) if len(ids) < model.config.max_seq_len]
    engine = chat_engine(model, tokenizer)
    with context.track(label, len(fitting), "answers") as tracker:
        completions = engine.generate(
            [prompts[index] for index in fitting],
            max_new_tokens=max_new_tokens,
            temperature=0.0,
            on_done=tracker.advance,
        )
    answers = {
        index: tokenizer.decode(completion.content)
        for index, completion in zip(fitting, completions, strict=True)
    }
    return [
        GradedAnswer(example, answer, grade(tasks[example.task], example, answer), tuple(retrieved[index]))
        for index, example in enumerate(examples)
        for answer in [answers.get(index, "")]
    ]


def grade(task: Task, example: Example, answer: str) -> dict[str, float]:
    """The task's scores of an answer. Raises DataError for a score that the task does not declare."""
    scores = task.grade(example, answer)
    undeclared = scores.keys() - set(task.metrics)
    if undeclared or "chrf" not in scores:
        raise DataError(
            f"task {example.task}: grade() returned {', '.join(scores) or 'nothing'}; it has to return `chrf`, "
            f"and may return what its `metrics` declare: {', '.join(task.metrics)}"
        )
    return scores
