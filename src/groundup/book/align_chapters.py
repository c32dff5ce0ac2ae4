"""Chapters 5 to 7: learning to answer, what is better, and from its own answers. One for each align step.

in:  the artifacts of sft, reward, ppo steps
out: chapters; a step the blueprint doesn't have has none
"""

from typing import Any

from groundup.book.content import Block, Chapter, Fact, Facts, Figure, Heading, Table, Tokens, prose, strong
from groundup.book.figures import Bar, Panel, bars_svg, curves_svg, series
from groundup.book.format import (
    count,
    duration,
    interval,
    is_interval,
    is_number,
    number,
    percent,
    visible,
)
from groundup.book.load_run import LoadedArtifact, LoadedRun
from groundup.book.sample_responses import compared, samples_of
from groundup.book.samples import lesson_pieces


def align_chapters(story: LoadedRun) -> list[Chapter]:
    """A chapter for each step, in the blueprint's order; a second one of a kind carries its name."""
    makers = {"sft": _sft, "reward": _reward, "ppo": _ppo}
    titles = {
        "sft": "Learning to answer",
        "reward": "Learning what is better",
        "ppo": "Learning from its own answers",
    }
    steps = story.align_steps()
    kinds = [made.stage for made in steps]
    chapters = []
    for made in steps:
        title = titles[made.stage] + (f" ({visible(made.label)})" if kinds.count(made.stage) > 1 else "")
        chapters.append(Chapter(title, tuple(makers[made.stage](made))))
    return chapters


def _sft(made: LoadedArtifact) -> list[Block]:
    figures = made.metrics
    before, after = figures.get("val_loss_before"), figures.get("val_loss")
    blocks: list[Block] = [
        prose("So far it only continues text. Now it reads ", strong("questions with their answers"),
              ", and learns to write the answer. The loss counts the answer's tokens only: it need not learn to ask.",
              role="lead"),
        Facts((
            Fact(number(before), "loss on unseen answers before"),
            Fact(number(after), "and after"),
            Fact(_fall(before, after), "less surprise"),
            Fact(duration(made.seconds), "of training"),
        )),
    ]  # fmt: skip
    panels = [
        Panel("loss on answers", (series(made.log, "loss", kind="smooth"),)),
    ]
    blocks += _drawn(
        panels, f"{made.label}-curves", "Fine-tuning, step by step: the loss on the answers' tokens."
    )
    lesson = _lesson(made)
    if lesson is not None:
        blocks += [Heading("One lesson, as the model sees it"), lesson]
    return blocks


def _fall(before: Any, after: Any) -> str:
    return (
        percent(1 - after / before) if is_number(before) and is_number(after) and before else "not measured"
    )


def _lesson(made: LoadedArtifact) -> Tokens | None:
    """One of the conversations it learnt from, with the mask of what it learnt: the first of a handy length."""
    lessons = [pieces for said in made.json("examples.json") or [] if (pieces := lesson_pieces(said))]
    if not lessons:
        return None
    handy = [pieces for pieces in lessons if 120 <= sum(len(piece.text) for piece in pieces) <= 900]
    return Tokens(
        (handy or lessons)[0],
        "Coloured is what it learns to write, the rest it only reads. <|end_of_turn|> is coloured too: so it learns "
        "to stop.",
    )


def _reward(made: LoadedArtifact) -> list[Block]:
    figures = made.metrics
    kinds = {key: value for key, value in (figures.get("accuracy_by_kind") or {}).items() if is_number(value)}
    blocks: list[Block] = [
        prose("A second model learns to ", strong("judge"), ". It reads two answers to one question, one of them "
              "right, and learns to give the right one the higher score. It never learns to write.", role="lead"),
        Facts((
            Fact(percent(figures.get("accuracy"), 1), "of unseen pairs in the right order"),
            *([Fact(count(_pairs(figures)), "pairs it was tested on")] if is_number(_pairs(figures)) else []),
            Fact(duration(made.seconds), "of training"),
        )),
    ]  # fmt: skip
    if kinds:
        bars = [Bar(_KINDS.get(key, visible(key).replace("_", " "))[:30], value, _of_kind(figures, key))
                for key, value in kinds.items()]  # fmt: skip
        caption = (
            "How often the right answer got the higher score, by what the wrong one was: an answer about another "
            "subject, one cut short, one garbled, or one the model wrote itself."
        )
        blocks.append(
            Figure(f"{made.label}-kinds", bars_svg(bars, "share of pairs", 1.0, (0.5, "a coin")), caption,
                   "Accuracy of the reward model for each kind of pair", 0.9)
        )  # fmt: skip
    panels = [
        Panel("loss", (series(made.log, "loss", kind="smooth"),)),
        Panel("accuracy on its own pairs", (series(made.log, "accuracy", kind="smooth", colour="green"),)),
    ]
    return blocks + _drawn(panels, f"{made.label}-curves", "Training of the judge, step by step.")


_KINDS = {
    "other": "about another subject",
    "truncated": "cut short",
    "garbled": "garbled",
    "sampled": "the model's own",
}


def _pairs(figures: dict[str, Any]) -> Any:
    return figures.get("held_out_pairs", figures.get("validation_pairs", figures.get("pairs")))


def _of_kind(figures: dict[str, Any], kind: str) -> tuple[float, float] | None:
    bounds = (figures.get("accuracy_interval_by_kind") or {}).get(kind)
    return (float(bounds[0]), float(bounds[1])) if is_interval(bounds) else None


def _ppo(made: LoadedArtifact) -> list[Block]:
    figures = made.metrics
    blocks: list[Block] = [
        prose("Now it writes answers of its own, the judge scores them, and what led to better scores becomes more "
              "likely (", strong("PPO"), "). It is held near the model it started from, since a judge that is "
              "chased too far gets fooled. So a measure the judge never saw, chrF against the true answer, watches.",
              role="lead"),
        _before_and_after(figures),
    ]  # fmt: skip
    if figures.get("stopped_early"):
        blocks.append(
            prose("Training stopped early: the model had moved as far from its start as it was allowed to.")
        )
    blocks.append(prose(confirmation(figures)))
    log = made.log
    panels = [
        Panel("reward of its answers", (series(log, "reward", colour="green"),)),
        Panel("distance from its start (KL)", (series(log, "kl", colour="orange"),)),
        Panel("tokens in an answer", (series(log, "answer_tokens", colour="violet"),)),
        Panel("share of answers that end by themselves", (series(log, "ended"),)),
    ]
    blocks += _drawn(panels, f"{made.label}-curves", "Reinforcement, step by step. KL is how far its choice of words "
                                                     "has moved from the model it started as.")  # fmt: skip
    samples = samples_of(made)
    if samples:
        blocks.append(Heading("Before and after"))
        blocks += [compared(sample) for sample in samples[:4]]
    return blocks


def _before_and_after(figures: dict[str, Any]) -> Table:
    lines = [
        ("reward of held-out answers", number(figures.get("reward_before")), number(figures.get("reward_after")),
         interval(figures.get("reward_gain_interval"), signed=True)),
        ("chrF, which the judge never saw", number(figures.get("chrf_before")), number(figures.get("chrf_after")),
         interval(figures.get("chrf_interval"), signed=True)),
        ("tokens in an answer", _length(figures.get("response_length_before")),
         _length(figures.get("response_length_after")), ""),
        ("answers that end by themselves", percent(figures.get("ended_before")),
         percent(figures.get("ended_after")), ""),
        ("distance from its start (KL), nats", "0", number(figures.get("kl"), 3), ""),
    ]  # fmt: skip
    return Table(("on held-out questions", "before", "after", "change, 95 %"), tuple(lines), "lrrr",
                 "Before and after reinforcement, on the same questions. Intervals: bootstrap, clustered by document; "
                 "one that holds 0 may be chance.")  # fmt: skip


def _length(value: Any) -> str:
    return number(float(value), 1) if is_number(value) else number(value)


def confirmation(figures: dict[str, Any]) -> str:
    """One sentence: does the measure that the judge never saw confirm the gain in reward?"""
    gain, change = figures.get("reward_gain_interval"), figures.get("chrf_interval")
    if not is_interval(gain) or not is_interval(change):
        return "Whether the gain is real can't be said: an interval was not measured."
    if gain[0] <= 0:
        return "The reward did not rise beyond chance, so there is no gain to confirm."
    if change[0] > 0:
        return "The reward rose, and the measure that the judge never saw rose with it: the gain is real."
    if change[1] < 0:
        return ("The reward rose while the measure that the judge never saw fell: it learnt to please its judge, "
                "not to answer better.")  # fmt: skip
    return (
        "The reward rose. The measure that the judge never saw did not change beyond chance: it neither confirms the "
        "gain nor shows that the judge was fooled."
    )


def _drawn(panels: list[Panel], name: str, caption: str) -> list[Block]:
    shown = [panel for panel in panels if len(panel.series[0].x) > 1]
    if not shown:
        return [prose("No curve was recorded.", role="note")]
    safe = "".join(char if char.isascii() and char.isalnum() else "-" for char in name)
    return [Figure(safe, curves_svg(shown, 2, "step", 1.45 if len(shown) > 2 else 1.7), caption, caption)]
