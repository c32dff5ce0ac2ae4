"""A chat model -> answers to examples, and their marks.

in:  a decoder with its tokenizer, examples
out: one answer per example (greedy), marks by figure
"""

from collections.abc import Sequence
from dataclasses import dataclass

from groundup.core.stage import StageContext
from groundup.evaluate.tasks import Example, Task
from groundup.infer.engine import Engine
from groundup.model.decoder import Decoder
from groundup.tokens.chat import prompt
from groundup.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class GradedAnswer:
    """An example, what the model said, and its marks."""

    example: Example
    answer: str
    marks: dict[str, float]


def chat_engine(model: Decoder, tokenizer: Tokenizer) -> Engine:
    """An engine that stops where a turn or a text ends."""
    stop = {tokenizer.end_of_turn, tokenizer.eos, tokenizer.bos}
    return Engine(model, stop, tokenizer.pad, model.config.max_seq_len)


def graded(
    model: Decoder,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    tasks: dict[str, Task],
    max_new_tokens: int,
    out: StageContext,
    label: str,
) -> list[GradedAnswer]:
    """Answer and mark every example; a question too long for the context gets an empty answer."""
    prompts = [prompt(example.conversation().messages[:-1], tokenizer) for example in examples]
    fitting = [index for index, ids in enumerate(prompts) if len(ids) < model.config.max_seq_len]
    engine = chat_engine(model, tokenizer)
    with out.track(label, len(fitting), "answers") as tracker:
        completions = engine.generate(
            [prompts[index] for index in fitting],
            max_new_tokens=max_new_tokens,
            temperature=0.0,
            on_done=tracker.advance,
        )
    said = {index: tokenizer.decode(done.content) for index, done in zip(fitting, completions, strict=True)}
    texts = [said.get(index, "") for index in range(len(examples))]
    return [
        GradedAnswer(example, text, tasks[example.task].grade(example, text))
        for example, text in zip(examples, texts, strict=True)
    ]
