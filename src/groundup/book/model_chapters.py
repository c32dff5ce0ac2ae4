"""Chapters 3 and 4: what the model is, and how it learnt to continue text.

in:  the artifact of pretrain
out: the drawing and the count of its parameters; curves and what they mean
"""

from typing import Any

from groundup.book.architecture import ModelBlock, architecture_svg, parts_of
from groundup.book.content import Block, Chapter, Fact, Facts, Figure, Heading, Table, prose, strong
from groundup.book.figures import Panel, curves_svg, series
from groundup.book.format import count, duration, is_number, number, percent, short
from groundup.book.load_run import LoadedArtifact, LoadedRun
from groundup.model.config import DecoderConfig

FAMILIES = {
    "qwen3": "Qwen3", "llama": "Llama", "olmo3": "OLMo 3", "qwen3_moe": "Qwen3-MoE", "gpt2": "GPT-2",
}  # fmt: skip


def config_of_story(story: LoadedRun) -> DecoderConfig | None:
    """The model's config, where pretrain noted one."""
    said = story.metrics("pretrain").get("decoder")
    try:
        return DecoderConfig.from_json(said) if isinstance(said, dict) else None
    except (KeyError, TypeError, ValueError):
        return None


def architecture_chapter(story: LoadedRun) -> Chapter | None:
    """The drawing, and a table of parameters that adds up."""
    config = config_of_story(story)
    if config is None:
        return None
    parts = parts_of(config)
    total = sum(part.parameters for part in parts)
    said = story.metrics("pretrain").get("parameters")
    blocks: list[Block] = [
        prose("The model is a ", strong("decoder"), ": it reads tokens from left to right and, at each one, gives "
              f"every token of its vocabulary a score for coming next. Its {config.n_layers} blocks are alike. Each "
              "lets the positions exchange what they know (attention) and then works on each by itself (MLP), and "
              "adds its result to a stream that runs straight through.", role="lead"),
        Figure("architecture", architecture_svg(config), _caption(config),
               f"A decoder of {config.n_layers} blocks, {config.d_model} wide, with {config.n_heads} heads", 0.86),
        Heading("Where the parameters are"),
        Table(("part", "shape", "numbers", "copies", "together"),
              (*map(_row, parts), ("all parts", "", "", "", count(total))), "llrrr", _adds_up(total, said), total=True),
    ]  # fmt: skip
    return Chapter("The architecture", tuple(blocks))


def _caption(config: DecoderConfig) -> str:
    family = FAMILIES.get(config.architecture, config.architecture)
    return (
        f"Drawn from the model's own config ({family} shape). Blue squares are query heads; the orange bar under "
        "them is the key and value head they share. The violet shape is the MLP's widening, to scale."
    )


def _row(part: ModelBlock) -> tuple[str, ...]:
    return (part.name, part.shape, count(part.each), count(part.times), count(part.parameters))


def _adds_up(total: int, said: Any) -> str:
    if not is_number(said):
        return "Counted from the config."
    if said == total:
        return f"Counted from the config, and equal to what the trained model holds: {count(said)}."
    return f"Counted from the config: {count(total)}. The trained model holds {count(said)}, which differs."


def pretrain_chapter(story: LoadedRun) -> Chapter | None:
    """Curves, speed, and a sentence for each."""
    made = story.first("pretrain")
    if made is None:
        return None
    figures = made.metrics
    blocks: list[Block] = [
        prose("At first its numbers are chance. It then saw ", strong(f"{short(figures.get('tokens'))} tokens"),
              f" in {count(figures.get('steps'))} steps; at each step it guessed every next token, and all its numbers "
              "moved a little towards the guess that would have been right.", role="lead"),
        Facts((
            Fact(number(figures.get("val_bpb")), "bits per unseen byte"),
            Fact(duration(figures.get("seconds", made.seconds)), "of training"),
            Fact(count(figures.get("tokens_per_second")), "tokens a second"),
            Fact(percent(figures.get("flops_utilization")), "of the machine's best rate"),
        )),
    ]  # fmt: skip
    blocks += _curves(made)
    blocks += [Heading("What the figures mean"), _meanings(story, made)]
    return Chapter("Pretraining", tuple(blocks))


def _curves(made: LoadedArtifact) -> list[Block]:
    log = made.log
    panels = [
        Panel("loss", (series(log, "loss", kind="smooth"),)),
        Panel("bits per byte of unseen text", (series(log, "val_bpb", kind="points", colour="orange"),)),
        Panel("learning rate, share of its peak", (series(log, "lr_factor", colour="green"),), y_from_zero=True),
        Panel("size of the gradient", (series(log, "grad_norm", colour="violet", kind="smooth"),), y_from_zero=True),
    ]  # fmt: skip
    panels = [panel for panel in panels if len(panel.series[0].x) > 1]
    if not panels:
        return [prose("No curve was recorded.", role="note")]
    caption = (
        "The course of training. Faint is each step, strong its running mean. The loss is what it paid for the text "
        "it learnt from, in nats per token; the orange curve is the price of text it never "
        "saw. The gradient is how strongly a step pulls at its numbers."
    )
    return [
        Figure(
            "pretraining", curves_svg(panels, 2, "step", 1.9), caption, "Curves of pretraining over its steps"
        )
    ]


def _meanings(story: LoadedRun, made: LoadedArtifact) -> Table:
    figures, rows = made.metrics, story.metrics("tokenize")
    lines = [
        ("bits per byte", number(figures.get("val_bpb"), 3),
         "What it costs to spell unseen text with the model's help. Knowing nothing costs 8."),
        ("tokens seen", count(figures.get("tokens")), _epochs(figures, rows)),
        ("tokens per parameter", _ratio(figures.get("tokens"), figures.get("parameters")),
         "A model of this kind can use about 20 different ones; fewer leave room to learn more."),
        ("share of the best rate", percent(figures.get("flops_utilization"), 1),
         f"Its arithmetic against plain matrix products on the same machine ({_rate(figures)})."),
        ("arithmetic in", str(figures.get("precision") or "not recorded"),
         "The weights themselves are kept in fp32. " + _compiled(figures)),
        ("steps skipped", count(figures.get("skipped_steps")),
         "Steps whose gradient was not finite; they change nothing."),
    ]  # fmt: skip
    return Table(("figure", "value", "in plain words"), tuple(lines), "lrl")


def _epochs(figures: dict[str, Any], rows: dict[str, Any]) -> str:
    seen, there = figures.get("tokens"), rows.get("train_tokens")
    if not (is_number(seen) and is_number(there) and there):
        return "Tokens it was trained on."
    return f"It went through its text {number(seen / there, 1)} times."


def _ratio(value: Any, of: Any) -> str:
    return number(value / of, 1) if is_number(value) and is_number(of) and of else "not measured"


def _rate(figures: dict[str, Any]) -> str:
    rate = figures.get("matmul_tflops")
    return f"{number(rate)} TFLOP/s" if is_number(rate) else "rate not recorded"


def _compiled(figures: dict[str, Any]) -> str:
    compiled = figures.get("compiled")
    if compiled is None:
        return ""
    return "The step was compiled." if compiled else "The step was not compiled."
