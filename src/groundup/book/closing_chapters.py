"""Chapters on the evaluation and the findings, and the appendix on reproducing the run.

in:  evaluate's metrics and samples, every manifest
out: chapters; samples include the worst answers
"""

import math
from typing import Any

from groundup.book.content import (
    Block,
    Chapter,
    Code,
    ColouredSpan,
    Dialogue,
    DialogueTurn,
    Figure,
    Findings,
    Heading,
    Table,
    prose,
    strong,
)
from groundup.book.figures import Bar, bars_svg
from groundup.book.findings import evidence_of, findings
from groundup.book.format import (
    clip,
    duration,
    is_number,
    number,
    visible,
)
from groundup.book.load_run import LoadedArtifact, LoadedRun
from groundup.book.model_chapters import model_config
from groundup.book.sample_responses import Sample, comparison, samples_of
from groundup.book.score_tables import comparison_blocks
from groundup.evaluate.examples import HELD_OUT_SHARE


def evaluation_chapter(run: LoadedRun) -> Chapter | None:
    """Scores with intervals, then samples: best, median and worst."""
    artifact = run.last("evaluate")
    if artifact is None:
        return None
    metrics = artifact.metrics
    blocks: list[Block] = [
        prose("All scores are measured on ", strong("held-out data"), ": text that was not in the training split, and "
              f"questions about documents without questions in the training data{_pretrained_on(run)}.", role="lead"),
        _scores(metrics),
    ]  # fmt: skip
    blocks += comparison_blocks(metrics)
    blocks += _samples(samples_of(artifact))
    blocks += _continuations(artifact.json("continuations.json"))
    return Chapter("How good is it?", tuple(blocks))


def _pretrained_on(run: LoadedRun) -> str:
    """A note where questions are about documents that pretraining may have trained on."""
    validation_share = (run.last("tokenize") or run.artifacts[0]).recipe.get("validation_share")
    if is_number(validation_share) and validation_share >= HELD_OUT_SHARE:
        return ""
    return " (pretraining may have used the text of some of these documents)"


def _scores(metrics: dict[str, Any]) -> Table:
    lines = [
        ("bits per byte, base model", number(metrics.get("base_bpb"), 3),
         "on held-out text; a uniform guess gets 8"),
        ("bits per byte, chat model", number(metrics.get("chat_bpb"), 3), "the same text after alignment"),
    ]  # fmt: skip
    return Table(("metric", "value", "meaning"), tuple(lines), "lrl", "Bits per byte of held-out text.")


def _continuations(entries: Any) -> list[Block]:
    """Continuations of held-out documents by the base model."""
    items = [item for item in entries if isinstance(item, dict)] if isinstance(entries, list) else []
    if not items:
        return []
    turns = []
    for item in items[:3]:
        opening = clip(str(item.get("beginning", "")), 400)
        continuation = clip(str(item.get("continuation", "")), 500) or "(nothing)"
        turns.append(DialogueTurn("user", (ColouredSpan(opening),), "document opening"))
        turns.append(DialogueTurn("base model", (ColouredSpan(continuation),), "continuation"))
    caption = "The base model, before alignment, continues held-out documents."
    return [Heading("Continuations by the base model"), Dialogue(tuple(turns), caption)]


def _samples(samples: list[Sample]) -> list[Block]:
    """The best, median and worst samples by score; the first five without scores."""
    taught = [item for item in samples if not item.held_out]
    samples = [item for item in samples if item.held_out]
    if not samples:
        return [prose("No samples were kept.", role="note")]
    scored = sorted((item for item in samples if item.score is not None), key=lambda item: -(item.score or 0))
    if len(scored) < 6:
        return [Heading("Sample answers"), *(comparison(item) for item in samples[:5])]
    middle = len(scored) // 2
    groups = (("Best answers", scored[:2]), ("Median answers", scored[middle : middle + 2]),
              ("Worst answers", scored[-2:]))  # fmt: skip
    blocks: list[Block] = []
    for title, items in groups:
        blocks += [Heading(title), *map(comparison, items)]
    if taught:
        blocks += [Heading("Taught questions"), *map(comparison, taught[:2])]
    return blocks


def findings_chapter(run: LoadedRun) -> Chapter:
    """Statements about the model, each derived from a metric by a fixed rule."""
    metrics = run.metrics_by_stage()
    config = model_config(run)
    recipe = (run.last("tokenize") or run.artifacts[0]).recipe
    context = recipe.get("seq_len") or (config.max_seq_len if config else None)
    metrics["architecture"] = {"context": context}
    blocks: list[Block] = [
        prose("Each statement follows by a fixed rule from the metric below it.", role="lead"),
        Findings(findings(evidence_of(metrics))),
    ]  # fmt: skip
    return Chapter("What the model can and cannot do", tuple(blocks))


def appendix(run: LoadedRun, blueprint: str) -> Chapter:
    """Time and fingerprint of every stage, machine, library versions, blueprint."""
    bars = [Bar(visible(artifact.label)[:24], artifact.seconds) for artifact in run.artifacts]
    limit = _round_up(max((artifact.seconds for artifact in run.artifacts), default=0.0))
    blocks: list[Block] = [
        Heading("The stages"),
        Figure("stages", bars_svg(bars, "seconds", limit), f"Time of each stage; {duration(run.seconds)} in total.",
               "Seconds of each stage", 0.9),
        Table(("step", "stage", "fingerprint", "version", "time"),
              (*map(_stage_row, run.artifacts), ("total", "", "", "", duration(run.seconds))),
              "llmrr", "A fingerprint covers a stage's recipe and its inputs, never the machine or the clock: "
              "the same fingerprint is the same artifact.", total=True),
        Heading("The machine"),
        Table(("", ""), _machine(run), "ll"),
    ]  # fmt: skip
    if blueprint:
        blocks += [
            Heading("The blueprint"),
            prose("The resolved blueprint, with every default and derived value. With the same data it reproduces "
                  "the model.", role="note"),
            Code(visible(blueprint.strip()), "toml"),
        ]  # fmt: skip
    return Chapter("Appendix: reproducing the run", tuple(blocks))


def _stage_row(artifact: LoadedArtifact) -> tuple[str, ...]:
    fingerprint = visible(str(artifact.manifest.get("fingerprint", "")))[:12]
    version = str(artifact.manifest.get("version", ""))
    return (
        visible(artifact.label),
        visible(artifact.stage),
        fingerprint,
        version,
        duration(artifact.seconds),
    )


def _round_up(seconds: float) -> float:
    if seconds <= 0:
        return 1.0
    step = 10 ** math.floor(math.log10(seconds))
    return float(math.ceil(seconds * 1.15 / step) * step)


def _machine(run: LoadedRun) -> tuple[tuple[str, str], ...]:
    artifact = run.first("pretrain") or run.artifacts[-1]
    environment = artifact.manifest.get("environment") or {}
    runtime = artifact.manifest.get("runtime") or {}
    lines = [("processor", f"{environment.get('cpu', 'unknown')}, {environment.get('cores', '?')} cores"),
             ("system", str(environment.get("platform", "unknown"))),
             ("Python", str(environment.get("python", "unknown")))]  # fmt: skip
    if environment.get("gpu"):
        lines.insert(1, ("GPU", str(environment["gpu"])))
    libraries = environment.get("libraries") or {}
    lines.append(("libraries", ", ".join(f"{name} {version}" for name, version in libraries.items())))
    lines.append(("commit", str(environment.get("commit") or "not a checkout")))
    lines.append(("runtime", ", ".join(f"{key} = {value}" for key, value in runtime.items())))
    lines.append(("started", str(run.artifacts[0].manifest.get("started", "unknown"))))
    return tuple((key, clip(value, 400)) for key, value in lines)
