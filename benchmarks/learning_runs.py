"""Cached pretraining runs for the learning benchmarks, with the pipeline's own stage.

in:  texts, and a recipe `Pretrain` per run
out: bits per byte on all validation rows, tokens, and the seconds spent in training steps

Every finished run is a line in FOLDER/runs.jsonl, keyed by the run's fingerprint; an interrupted run resumes. A
benchmark of many hours can thus be stopped and restarted. Weights aren't kept.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy import stats

from groundup.core.builder import Builder
from groundup.core.progress import Reporter
from groundup.core.registry import plugin_name
from groundup.core.runtime import Runtime
from groundup.core.store import Store
from groundup.text.curate.curate import Curate, curate
from groundup.text.ingest.ingest import Ingest, ingest
from groundup.tokens.tokenize import Tokenize, tokenize
from groundup.tokens.train_tokenizer import TokenizerRecipe, tokenizer
from groundup.train.pretrain import Pretrain, pretrain

ALL_ROWS = 10**6
"""`validation_rows` of every run: all of the split."""


@dataclass(frozen=True)
class RunResult:
    """The result of a run."""

    bits_per_byte: float
    parameters: int
    tokens: int
    tokens_per_second: float

    @property
    def seconds(self) -> float:
        """Seconds in training steps, without compilation, validation and saving."""
        return self.tokens / self.tokens_per_second


class Runs:
    """The token dataset of one corpus, and a cached result per recipe."""

    def __init__(self, folder: Path, data: list[str], vocab_size: int, seq_len: int, threads: int) -> None:
        self._log = folder / "runs.jsonl"
        self._store = Store(folder)
        self._runtime = Runtime(threads=threads)
        build = self._builder()
        raw = build(ingest, Ingest.model_validate({"sources": [{"use": "files", "paths": data}]}))
        documents = build(curate, Curate.model_validate({"steps": [{"use": "repair"}]}), raw, {})
        self._tokenizer = build(tokenizer, TokenizerRecipe(vocab_size=vocab_size), documents)
        self._dataset = build(tokenize, Tokenize(seq_len=seq_len), documents, self._tokenizer)
        lines = self._log.read_text(encoding="utf-8").splitlines() if self._log.exists() else []
        self._results = {line["run"]: RunResult(**line["outcome"]) for line in map(json.loads, lines)}

    def __call__(self, recipe: Pretrain) -> RunResult:
        """The run of this recipe, from the cache or trained now."""
        key = self._builder().fingerprint(pretrain, recipe, self._dataset, self._tokenizer)
        if key not in self._results:
            artifact = self._builder()(pretrain, recipe, self._dataset, self._tokenizer)
            metrics = artifact.metrics()
            names = ("parameters", "tokens", "tokens_per_second")
            result = RunResult(metrics["val_bpb"], *(metrics[name] for name in names))
            line = {"run": key, "recipe": recipe.model_dump(mode="json"), "outcome": asdict(result)}
            with self._log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self._results[key] = result
            self._store.quarantine(artifact)
        return self._results[key]

    def speed(self, recipe: Pretrain, trial_steps: int) -> float:
        """Tokens/s of a short run."""
        trial = recipe.model_copy(update={"tokens": trial_steps * recipe.batch_tokens})
        return self(trial).tokens_per_second

    def tokens_in(self, recipe: Pretrain, seconds: float, trial_steps: int) -> int:
        """Tokens that `recipe` trains on in `seconds`, by the speed of a short run."""
        steps = round(self.speed(recipe, trial_steps) * seconds / recipe.batch_tokens)
        return max(1, steps) * recipe.batch_tokens

    def _builder(self) -> Builder:
        return Builder(self._store, self._runtime, Reporter())


def recipe(*changes: dict[str, Any]) -> Pretrain:
    """The default recipe with `changes` applied in order.

    A table that names another part (`use`) replaces the one before; one that names none is merged into it.
    """
    default = Pretrain()
    merged: dict[str, Any] = {
        "architecture": {"use": plugin_name(default.architecture)},
        "optimizer": {"use": plugin_name(default.optimizer)},
        "validation_rows": ALL_ROWS,
        "validate_every": ALL_ROWS,
    }
    for table in changes:
        for key, value in table.items():
            merges = isinstance(value, dict) and value.get("use") in (None, merged[key]["use"])
            merged[key] = merged[key] | value if merges else value
    return Pretrain.model_validate(merged)


def interval(values: list[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval by Student's t; nan for a single value."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, float("nan")
    error = float(stats.sem(values))
    return mean, float(stats.t.ppf(0.975, len(values) - 1)) * error


def table(head: list[str], rows: list[list[str]]) -> str:
    """A text table; the first column left-aligned, the others right-aligned."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = []
    for row in [head, ["-" * width for width in widths], *rows]:
        cells = [
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
