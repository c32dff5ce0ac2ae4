"""A whole run in miniature: a few small documents, a tiny model, every stage, in well under a minute."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from groundup.cli import main

SUBJECTS = ("apple", "bridge", "candle", "door", "engine", "forest", "garden", "harbor", "island", "jacket")
VERBS = ("opens", "counts", "paints", "moves", "cleans", "sorts")

OVERRIDES = (
    "curate.steps.length.min_chars=1",
    "tokenizer.vocab_size=320",
    "tokenize.seq_len=256",
    "tokenize.validation_share=0.2",
    "pretrain.depth=1",
    "pretrain.architecture.d_model=32",
    "pretrain.architecture.n_heads=2",
    "pretrain.tokens=40_000",
    "align.finetune.batch_rows=2",
    "align.finetune.max_tokens=30_000",
    "align.reward.batch_rows=4",
    "align.reward.other=40",
    "align.reward.truncated=20",
    "align.reward.garbled=20",
    "align.reward.sampled=16",
    "align.reward.held_out=8",
    "align.reward.max_new_tokens=24",
    "align.align.iterations=2",
    "align.align.rollout_batch_size=16",
    "align.align.held_out=8",
    "align.align.max_new_tokens=24",
    "evaluate.examples=8",
    "evaluate.max_new_tokens=24",
)


def corpus(folder: Path, files: int = 24) -> Path:
    """Python files with docstrings and Markdown files with headings, about common things."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        subject, verb = SUBJECTS[number % len(SUBJECTS)], VERBS[number % len(VERBS)]
        (folder / f"module_{number}.py").write_text(_python(subject, verb, number))
    for number in range(files // 3):
        subject, verb = SUBJECTS[number % len(SUBJECTS)], VERBS[(number + 1) % len(VERBS)]
        (folder / f"page_{number}.md").write_text(_markdown(subject, verb, number))
    return folder


def _python(subject: str, verb: str, number: int) -> str:
    functions = "\n\n".join(
        f"def {name}_{subject}(value, limit={index}):\n"
        f'    """Return how the {subject} {name}s the value number {number}, up to the limit."""\n'
        f"    return value + limit\n"
        for index, name in enumerate((verb.rstrip("s"), "read", "write"))
    )
    return f'"""Tools for the {subject} which {verb} things."""\n\n\n{functions}'


def _markdown(subject: str, verb: str, number: int) -> str:
    return (
        f"# The {subject} number {number}\n\nA {subject} is a thing which {verb} other things. "
        f"People in the town say that the {subject} {verb} them every day, and that it always did.\n\n"
        f"## How the {subject} works\n\nThe {subject} works slowly in the morning. It {verb} what it finds, "
        f"and then it rests until the evening comes and the work begins again.\n"
    )


def killed(command: list[str], seconds: float) -> None:
    """Start a program, and kill it and all it started after so long."""
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def groundup(*argv: str) -> None:
    """Call the command line in this process; it must end well."""
    with pytest.raises(SystemExit) as left:
        main(list(argv))
    assert left.value.code in (0, None)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
