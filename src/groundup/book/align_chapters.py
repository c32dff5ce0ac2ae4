"""Chapters on alignment: one for each align step of the run.

in:  the artifacts of the align steps; the layout of a chapter follows from kind and metrics
out: chapters in the blueprint's order
"""

from collections.abc import Callable
from typing import Any

from groundup.book.coloured_text import coloured_loss_mask
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
from groundup.book.sample_responses import comparison, samples_of


def align_chapters(run: LoadedRun) -> list[Chapter]:
    """A chapter for each align step; chapters of one title have the step's label in it."""
    steps = [(*_layout(artifact), artifact) for artifact in run.align_steps()]
    titles = [title for title, _, _ in steps]
    chapters = []
    for title, blocks, artifact in steps:
        label = f" ({visible(artifact.label)})" if titles.count(title) > 1 else ""
        chapters.append(Chapter(title + label, tuple(blocks(artifact))))
    return chapters


def _layout(artifact: LoadedArtifact) -> tuple[str, Callable[[LoadedArtifact], list[Block]]]:
    """Title and layout of a step's chapter, by its kind and metrics."""
    if artifact.kind == "reward_model":
        return "Reward model", _reward_model
    if "reward_before" in artifact.metrics:
        return "Reinforcement learning", _reinforcement
    if "val_loss_before" in artifact.metrics:
        return "Supervised fine-tuning", _fine_tuning
    return f"Alignment: {visible(artifact.stage)}", _training


def _training(artifact: LoadedArtifact) -> list[Block]:
    """Any other training: its numeric metrics and its loss."""
    metrics = {key: value for key, value in artifact.metrics.items() if is_number(value)}
    lines = tuple((visible(key), number(value, 3)) for key, value in metrics.items())
    table = (
        [Table(("metric", "value"), lines, "lr", f"Metrics of {visible(artifact.label)}.")] if lines else []
    )
    panels = [Panel("loss", (series(artifact.log, "loss", kind="smooth"),))]
    return [
        prose(
            "An alignment step of ",
            strong(visible(artifact.stage)),
            f", {duration(artifact.seconds)}.",
            role="lead",
        ),
        *table,
        *_curves(panels, f"{artifact.label}-curves", "Training loss per step."),
    ]


def _fine_tuning(artifact: LoadedArtifact) -> list[Block]:
    metrics = artifact.metrics
    before, after = metrics.get("val_loss_before"), metrics.get("val_loss")
    blocks: list[Block] = [
        prose("The pretrained model only continues text. Supervised fine-tuning trains it on ",
              strong("questions with their answers"), ". The loss mask covers the answer's tokens only, so the model "
              "learns to answer and not to ask.", role="lead"),
        Facts((
            Fact(number(before), "loss on held-out answers before"),
            Fact(number(after), "after"),
            Fact(_fall(before, after), "lower"),
            Fact(duration(artifact.seconds), "training time"),
        )),
    ]  # fmt: skip
    if is_number(metrics.get("unread_share")):
        blocks.append(
            prose(
                f"It read its conversations {number(metrics.get('epochs'))} times; "
                f"{percent(metrics.get('unread_share'))} of them were never read. "
                f"It ended at its limit `{visible(str(metrics.get('ended_by')))}`.",
                role="note",
            )
        )
    panels = [
        Panel("loss on answers", (series(artifact.log, "loss", kind="smooth"),)),
    ]
    blocks += _curves(panels, f"{artifact.label}-curves", "Training loss per step, over the answers' tokens.")
    example = _training_example(artifact)
    if example is not None:
        blocks += [Heading("A training example with its loss mask"), example]
    return blocks


def _fall(before: Any, after: Any) -> str:
    return (
        percent(1 - after / before) if is_number(before) and is_number(after) and before else "not measured"
    )


def _training_example(artifact: LoadedArtifact) -> Tokens | None:
    """One training conversation with its loss mask: the first of 120 to 900 characters, else the first."""
    examples = [spans for item in artifact.json("examples.json") or [] if (spans := coloured_loss_mask(item))]
    if not examples:
        return None
    fitting = [spans for spans in examples if 120 <= sum(len(span.text) for span in spans) <= 900]
    return Tokens(
        (fitting or examples)[0],
        "Coloured tokens are in the loss; the others are context. <|end_of_turn|> is in the loss, so the model learns "
        "to stop.",
    )


def _reward_model(artifact: LoadedArtifact) -> list[Block]:
    metrics = artifact.metrics
    kinds = {key: value for key, value in (metrics.get("accuracy_by_kind") or {}).items() if is_number(value)}
    blocks: list[Block] = [
        prose("A ", strong("reward model"), " scores answers. It is trained on pairs of answers to one question, one "
              "of them right, to give the right one the higher score.", role="lead"),
        Facts((
            Fact(percent(metrics.get("accuracy"), 1), "accuracy on held-out pairs"),
            *([Fact(count(_pairs(metrics)), "held-out pairs")] if is_number(_pairs(metrics)) else []),
            Fact(duration(artifact.seconds), "training time"),
        )),
    ]  # fmt: skip
    if kinds:
        bars = [Bar(_KINDS.get(key, visible(key).replace("_", " "))[:30], value, _of_kind(metrics, key))
                for key, value in kinds.items()]  # fmt: skip
        caption = (
            "Fraction of pairs in which the right answer got the higher score, by kind of wrong answer: about another "
            "subject, truncated, garbled, or sampled from the model."
        )
        blocks.append(
            Figure(f"{artifact.label}-kinds", bars_svg(bars, "accuracy", 1.0, (0.5, "chance")), caption,
                   "Accuracy of the reward model for each kind of pair", 0.9)
        )  # fmt: skip
    panels = [
        Panel("loss", (series(artifact.log, "loss", kind="smooth"),)),
        Panel(
            "accuracy on training pairs", (series(artifact.log, "accuracy", kind="smooth", colour="green"),)
        ),
    ]
    return blocks + _curves(panels, f"{artifact.label}-curves", "Training of the reward model, per step.")


_KINDS = {
    "other": "about another subject",
    "truncated": "truncated",
    "garbled": "garbled",
    "sampled": "sampled from the model",
}


def _pairs(metrics: dict[str, Any]) -> Any:
    return metrics.get("held_out_pairs", metrics.get("validation_pairs", metrics.get("pairs")))


def _of_kind(metrics: dict[str, Any], kind: str) -> tuple[float, float] | None:
    bounds = (metrics.get("accuracy_interval_by_kind") or {}).get(kind)
    return (float(bounds[0]), float(bounds[1])) if is_interval(bounds) else None


def _reinforcement(artifact: LoadedArtifact) -> list[Block]:
    metrics = artifact.metrics
    blocks: list[Block] = [
        prose("The model samples responses, the reward model scores them, and ", strong("PPO"),
              " makes tokens that led to higher scores more likely. A KL penalty keeps the policy near the reference "
              "policy, because optimizing a reward model too far exploits its errors. chrF against the reference "
              "answers, which the reward model never saw, checks the gain.", role="lead"),
        _before_and_after(metrics),
    ]  # fmt: skip
    if metrics.get("stopped_early"):
        blocks.append(prose("Training stopped early: the KL divergence reached max_kl."))
    blocks.append(prose(confirmation(metrics)))
    log = artifact.log
    panels = [
        Panel("reward of responses", (series(log, "reward", colour="green"),)),
        Panel("KL to the reference policy", (series(log, "kl", colour="orange"),)),
        Panel("response length, tokens", (series(log, "response_tokens", colour="violet"),)),
        Panel("fraction of responses with EOS", (series(log, "ended"),)),
    ]
    blocks += _curves(panels, f"{artifact.label}-curves", "Training per iteration. KL is the divergence of the policy "
                                                     "from the reference policy, in nats.")  # fmt: skip
    samples = samples_of(artifact)
    if samples:
        blocks.append(Heading("Before and after"))
        blocks += [comparison(sample) for sample in samples[:4]]
    return blocks


def _before_and_after(metrics: dict[str, Any]) -> Table:
    lines = [
        ("reward", number(metrics.get("reward_before")), number(metrics.get("reward_after")),
         interval(metrics.get("reward_gain_interval"), signed=True)),
        ("chrF against the reference answers", number(metrics.get("chrf_before")), number(metrics.get("chrf_after")),
         interval(metrics.get("chrf_interval"), signed=True)),
        ("response length, tokens", _length(metrics.get("response_length_before")),
         _length(metrics.get("response_length_after")), ""),
        ("responses with EOS", percent(metrics.get("ended_before")),
         percent(metrics.get("ended_after")), ""),
        ("KL to the reference policy, nats", "0", number(metrics.get("kl"), 3), ""),
    ]  # fmt: skip
    return Table(("on held-out questions", "before", "after", "change, 95 % interval"), tuple(lines), "lrrr",
                 "Before and after PPO, on the same held-out questions, with bootstrap intervals clustered by "
                 "document. An interval that contains 0 may be chance.")  # fmt: skip


def _length(value: Any) -> str:
    return number(float(value), 1) if is_number(value) else number(value)


def confirmation(metrics: dict[str, Any]) -> str:
    """One sentence: whether chrF, which the reward model never saw, confirms the gain in reward."""
    gain, change = metrics.get("reward_gain_interval"), metrics.get("chrf_interval")
    if not is_interval(gain) or not is_interval(change):
        return "The gain can't be confirmed: an interval was not measured."
    if gain[0] <= 0:
        return "The reward did not rise significantly, so there is no gain to confirm."
    if change[0] > 0:
        return "The reward rose and chrF, which the reward model never saw, rose with it: the gain is real."
    if change[1] < 0:
        return ("The reward rose while chrF, which the reward model never saw, fell: the policy exploits the reward "
                "model and does not answer better.")  # fmt: skip
    return (
        "The reward rose. chrF, which the reward model never saw, did not change significantly: it neither confirms "
        "the gain nor shows that the reward model was exploited."
    )


def _curves(panels: list[Panel], name: str, caption: str) -> list[Block]:
    shown = [panel for panel in panels if len(panel.series[0].x) > 1]
    if not shown:
        return [prose("No curve was recorded.", role="note")]
    safe = "".join(char if char.isascii() and char.isalnum() else "-" for char in name)
    return [Figure(safe, curves_svg(shown, 2, "step", 1.45 if len(shown) > 2 else 1.7), caption, caption)]
