"""Chapters 8 and 9 and the appendix: how good it is, what it can and cannot do, and how to make it again.

in:  evaluate's figures and samples, every manifest
out: chapters that say the bad with the good
"""

import math
from typing import Any

from groundup.book.content import (
    Block,
    Chapter,
    Code,
    Dialogue,
    Figure,
    Heading,
    Piece,
    Table,
    Turn,
    Verdicts,
    prose,
    strong,
)
from groundup.book.figures import Bar, bars_svg
from groundup.book.findings import chrf_word, evidence_of, verdicts
from groundup.book.format import (
    clip,
    count,
    duration,
    interval,
    is_interval,
    is_number,
    number,
    percent,
    visible,
)
from groundup.book.load_run import LoadedRun
from groundup.book.model_chapters import config_of_story
from groundup.book.sample_responses import Sample, compared, samples_of
from groundup.evaluate.examples import HELD_OUT_SHARE


def evaluation_chapter(story: LoadedRun) -> Chapter | None:
    """Figures with intervals, then samples, the bad ones too."""
    made = story.last("evaluate")
    if made is None:
        return None
    figures = made.metrics
    blocks: list[Block] = [
        prose("All figures here come from what was ", strong("held back"), ": plain text that it never read, and "
              f"questions about documents that it was never asked about{_read_before(story)}.", role="lead"),
        _scores(figures),
    ]  # fmt: skip
    by_kind = {key: value for key, value in (figures.get("chrf_by_kind") or {}).items() if is_number(value)}
    if by_kind:
        bars = [Bar(visible(key).replace("_", " ")[:30], value) for key, value in by_kind.items()]
        limit = min(100.0, max(20.0, max(by_kind.values()) * 1.35))
        drawing = bars_svg(bars, "chrF", limit, _form_alone(figures))
        blocks.append(
            Figure("kinds", drawing, "chrF by the kind of question.", "chrF by kind of question", 0.9)
        )
    blocks += _samples(samples_of(made))
    blocks += _continuations(made.json("continuations.json"))
    return Chapter("How good is it?", tuple(blocks))


def _read_before(story: LoadedRun) -> str:
    """Whether documents of the questions may have been read in pretraining: if more were held out here than there."""
    unread = (story.last("tokenize") or story.made[0]).recipe.get("validation_share")
    if is_number(unread) and unread >= HELD_OUT_SHARE:
        return ""
    return " (some of these it did read as plain text)"


def _scores(figures: dict[str, Any]) -> Table:
    asked, chrf = figures.get("examples"), figures.get("chat_chrf")
    lines = [
        ("bits per byte, base model", number(figures.get("base_bpb"), 3), "",
         "the price of unseen text; 8 is knowing nothing"),
        ("bits per byte, chat model", number(figures.get("chat_bpb"), 3), "", "the same after it learnt to answer"),
        ("chrF of its answers", number(chrf, 1), interval(figures.get("chat_chrf_interval"), 1),
         "of 100: letters and words shared with the true answer"),
        ("chrF of form alone", number(figures.get("baseline_chrf"), 1), "",
         "what the true answer to another question of the kind gets"),
        ("names that are right", percent(figures.get("names")), _shares(figures.get("names_interval")),
         "of the functions and parameters that belong in the answer"),
        ("answers that are right", percent(figures.get("exact")), _shares(figures.get("exact_interval")),
         "word for word"),
    ]  # fmt: skip
    note = f"Measured on {count(asked)} questions. " if is_number(asked) else ""
    meaning = f" At this chrF, {chrf_word(chrf)}." if is_number(chrf) else ""
    return Table(("figure", "value", "95 %", "what it says"), tuple(lines), "lrrl",
                 f"{note}The intervals are bootstraps clustered by document.{meaning}")  # fmt: skip


def _form_alone(figures: dict[str, Any]) -> tuple[float, str] | None:
    baseline = figures.get("baseline_chrf")
    return (float(baseline), "form alone") if is_number(baseline) else None


def _shares(bounds: Any) -> str:
    return f"{percent(bounds[0])} to {percent(bounds[1])}" if is_interval(bounds) else ""


def _continuations(said: Any) -> list[Block]:
    """How the base model goes on with text that it never saw."""
    items = [item for item in said if isinstance(item, dict)] if isinstance(said, list) else []
    if not items:
        return []
    return [Heading("Left to itself"), Dialogue(tuple(
        turn for item in items[:3] for turn in (
            Turn("user", (Piece(clip(str(item.get("beginning", "")), 400)),), "the beginning"),
            Turn("base model", (Piece(clip(str(item.get("continuation", "")), 500) or "(nothing)"),), "goes on"),
        )), "The base model, before it learnt to answer, goes on with beginnings of documents that it never saw."),
    ]  # fmt: skip


def _samples(samples: list[Sample]) -> list[Block]:
    """The best, the worst and some from the middle by score; the first few where nothing is scored."""
    familiar = [item for item in samples if not item.held_out]
    samples = [item for item in samples if item.held_out]
    if not samples:
        return [prose("No samples were kept.", role="note")]
    scored = sorted((item for item in samples if item.score is not None), key=lambda item: -(item.score or 0))
    if len(scored) < 6:
        return [Heading("In its own words"), *(compared(item) for item in samples[:5])]
    middle = len(scored) // 2
    picked = (("Its best answers", scored[:2]), ("Answers from the middle", scored[middle : middle + 2]),
              ("Its worst answers", scored[-2:]))  # fmt: skip
    blocks: list[Block] = []
    for title, items in picked:
        blocks += [Heading(title), *map(compared, items)]
    if familiar:
        blocks += [Heading("Asked what it was taught"), *map(compared, familiar[:2])]
    return blocks


def verdict_chapter(story: LoadedRun) -> Chapter:
    """What follows from the figures, by rule."""
    figures = story.figures()
    config = config_of_story(story)
    recipe = (story.last("tokenize") or story.made[0]).recipe
    context = recipe.get("seq_len") or (config.max_seq_len if config else None)
    figures["architecture"] = {"context": context}
    blocks: list[Block] = [
        prose("Nobody could talk this page up: each line follows by a fixed rule from the figure beneath it.",
              role="lead"),
        Verdicts(verdicts(evidence_of(figures))),
    ]  # fmt: skip
    return Chapter("What it can and cannot do", tuple(blocks))


def appendix(story: LoadedRun, blueprint: str) -> Chapter:
    """Time and fingerprint of every stage, machine, versions, blueprint."""
    slowest = max((made.seconds for made in story.made), default=0.0)
    bars = [Bar(visible(made.label)[:24], made.seconds) for made in story.made]
    limit = _round_up(slowest)
    blocks: list[Block] = [
        Heading("The stages"),
        Figure("stages", bars_svg(bars, "seconds", limit), f"Where the {duration(story.seconds)} went.",
               "Seconds that each stage took", 0.9),
        Table(("stage", "kind", "fingerprint", "version", "time"),
              (*((visible(made.label), visible(made.stage), visible(str(made.manifest.get("fingerprint", "")))[:12],
                  str(made.manifest.get("version", "")), duration(made.seconds)) for made in story.made),
               ("all", "", "", "", duration(story.seconds))),
              "llmrr", "A fingerprint covers what a stage read and what it was told, never the machine or the clock: "
              "the same fingerprint is the same artifact.", total=True),
        Heading("The machine"),
        Table(("", ""), _machine(story), "ll"),
    ]  # fmt: skip
    if blueprint:
        blocks += [
            Heading("The blueprint"),
            prose("With every default and derived value written out. With the same data, this file makes the same "
                  "model again.", role="note"),
            Code(visible(blueprint.strip()), "toml"),
        ]  # fmt: skip
    return Chapter("Appendix: how to make it again", tuple(blocks))


def _round_up(seconds: float) -> float:
    if seconds <= 0:
        return 1.0
    step = 10 ** math.floor(math.log10(seconds))
    return float(math.ceil(seconds * 1.15 / step) * step)


def _machine(story: LoadedRun) -> tuple[tuple[str, str], ...]:
    made = story.first("pretrain") or story.made[-1]
    said = made.manifest.get("environment") or {}
    runtime = made.manifest.get("runtime") or {}
    lines = [("processor", f"{said.get('cpu', 'unknown')}, {said.get('cores', '?')} cores"),
             ("system", str(said.get("platform", "unknown"))),
             ("Python", str(said.get("python", "unknown")))]  # fmt: skip
    if said.get("gpu"):
        lines.insert(1, ("GPU", str(said["gpu"])))
    libraries = said.get("libraries") or {}
    lines.append(("libraries", ", ".join(f"{name} {version}" for name, version in libraries.items())))
    lines.append(("commit", str(said.get("commit") or "not a checkout")))
    lines.append(("runtime", ", ".join(f"{key} = {value}" for key, value in runtime.items())))
    lines.append(("begun", str(story.made[0].manifest.get("started", "unknown"))))
    return tuple((key, clip(value, 400)) for key, value in lines)
