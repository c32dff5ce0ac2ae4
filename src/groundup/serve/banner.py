"""What `groundup chat` prints first: run, model, and questions to try.

in:  a Chat, the hardware, the checkpoint and its run
out: text of a few lines
"""

import json
from pathlib import Path

from groundup.book.format import short
from groundup.core.store import ChosenModel
from groundup.parallel.hardware import Hardware
from groundup.serve.conversation import Chat
from groundup.serve.terminal import HELP

QUESTIONS = 3
LONGEST_QUESTION = 100
"""Characters of a question to try; longer ones are passages rather than questions."""


def banner(chat: Chat, hardware: Hardware, chosen: ChosenModel) -> str:
    """Name, size and context of the model, how to chat, and held-out questions of the run where there are some."""
    parameters = sum(parameter.numel() for parameter in chat.engine.model.parameters())
    questions = questions_to_try(chosen.samples) if chosen.samples is not None else []
    lines = [
        f"{chosen.name}: {short(parameters)} parameters, context of {chat.context:,} tokens, "
        f"{hardware.precision} on {hardware.device.type}",
        HELP,
        *(["Questions to try:"] if questions else []),
        *(f"  {question}" for question in questions),
    ]
    return "\n".join(lines)


def questions_to_try(samples: Path) -> list[str]:
    """Short held-out questions from `samples.json` of the stage `evaluate`, of different kinds where there are."""
    try:
        items = json.loads(samples.read_text(encoding="utf-8"))
        held_out = [(item["kind"], item["question"]) for item in items if item["held_out"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    short_ones = [(kind, question) for kind, question in held_out if len(question) <= LONGEST_QUESTION]
    one_per_kind = dict(reversed(short_ones))
    chosen = [*reversed(one_per_kind.values()), *(question for _, question in short_ones)]
    return list(dict.fromkeys(chosen))[:QUESTIONS]
