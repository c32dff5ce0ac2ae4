"""Chapters on the architecture and on pretraining.

in:  the artifact of pretrain
out: the drawing and the parameter table; training curves and metrics
"""

from typing import Any

from groundup.book.architecture import ModelBlock, architecture_svg, parameter_blocks
from groundup.book.content import Block, Chapter, Fact, Facts, Figure, Heading, Table, prose, strong
from groundup.book.figures import Panel, curves_svg, series
from groundup.book.format import count, duration, is_number, number, percent, short, visible
from groundup.book.load_run import LoadedArtifact, LoadedRun
from groundup.model.config import DecoderConfig

FAMILIES = {
    "qwen3": "Qwen3", "llama": "Llama", "olmo3": "OLMo 3", "qwen3_moe": "Qwen3-MoE", "gpt2": "GPT-2",
}  # fmt: skip


def model_config(run: LoadedRun) -> DecoderConfig | None:
    """The model's config from pretrain's metrics; None when absent or unreadable."""
    decoder = run.metrics("pretrain").get("decoder")
    try:
        return DecoderConfig.from_json(decoder) if isinstance(decoder, dict) else None
    except (KeyError, TypeError, ValueError):
        return None


def architecture_chapter(run: LoadedRun) -> Chapter | None:
    """The drawing and the parameter table."""
    config = model_config(run)
    if config is None:
        return None
    model_blocks = parameter_blocks(config)
    total = sum(block.parameters for block in model_blocks)
    recorded = run.metrics("pretrain").get("parameters")
    blocks: list[Block] = [
        prose("The model is a decoder-only ", strong("transformer"), ": at every position it computes a logit for each "
              f"token of the vocabulary to come next. It has {config.n_layers} blocks of the same shape. Each applies "
              "attention across positions and an MLP to each position, and adds both results to the residual stream.",
              role="lead"),
        Figure("architecture", architecture_svg(config), _caption(config),
               f"A decoder of {config.n_layers} blocks, {config.d_model} wide, with {config.n_heads} heads", 0.86),
        Heading("Where the parameters are"),
        Table(("weights", "shape", "parameters", "copies", "total"),
              (*map(_row, model_blocks), ("all", "", "", "", count(total))), "llrrr", _count_note(total, recorded),
              total=True),
    ]  # fmt: skip
    return Chapter("The architecture", tuple(blocks))


def _caption(config: DecoderConfig) -> str:
    family = FAMILIES.get(config.architecture, config.architecture)
    return (
        f"Drawn from the model's config ({family} shape). Blue squares are query heads; the orange bar under "
        "them is the key and value head they share. The violet shape is the MLP's hidden width, to scale."
    )


def _row(block: ModelBlock) -> tuple[str, ...]:
    return (
        block.name,
        block.shape,
        count(block.parameters_each),
        count(block.copies),
        count(block.parameters),
    )


def _count_note(total: int, recorded: Any) -> str:
    if not is_number(recorded):
        return "Counted from the config."
    if recorded == total:
        return f"Counted from the config; equal to the trained model's {count(recorded)}."
    return f"Counted from the config: {count(total)}. The trained model has {count(recorded)}, which differs."


def pretrain_chapter(run: LoadedRun) -> Chapter | None:
    """Training curves, speed and metrics of pretraining."""
    artifact = run.first("pretrain")
    if artifact is None:
        return None
    metrics = artifact.metrics
    blocks: list[Block] = [
        prose("Pretraining started from random weights and used ", strong(f"{short(metrics.get('tokens'))} tokens"),
              f" in {count(metrics.get('steps'))} steps. Each step predicts every next token of a batch and moves the "
              "weights along the gradient of the cross-entropy loss.", role="lead"),
        Facts((
            Fact(number(metrics.get("val_bpb")), "bits per byte, held-out text"),
            Fact(duration(metrics.get("seconds", artifact.seconds)), "training time"),
            Fact(count(metrics.get("tokens_per_second")), "tokens per second"),
            Fact(percent(metrics.get("flops_utilization")), "FLOPs utilization"),
        )),
    ]  # fmt: skip
    blocks += _curves(artifact)
    blocks += [Heading("The metrics"), _metrics_table(run, artifact)]
    return Chapter("Pretraining", tuple(blocks))


def _curves(artifact: LoadedArtifact) -> list[Block]:
    log = artifact.log
    panels = [
        Panel("loss", (series(log, "loss", kind="smooth"),)),
        Panel("bits per byte of held-out text", (series(log, "val_bpb", kind="points", colour="orange"),)),
        Panel("learning rate, fraction of the peak", (series(log, "lr_factor", colour="green"),), y_from_zero=True),
        Panel("gradient norm", (series(log, "grad_norm", colour="violet", kind="smooth"),), y_from_zero=True),
    ]  # fmt: skip
    panels = [panel for panel in panels if len(panel.series[0].x) > 1]
    if not panels:
        return [prose("No curve was recorded.", role="note")]
    caption = (
        "Pretraining per step: thin lines are single steps, thick lines running means. The loss is the cross-entropy "
        "of the training text in nats per token; the orange curve is the validation loss in bits per byte. The "
        "gradient norm is measured before clipping."
    )
    return [
        Figure("pretraining", curves_svg(panels, 2, "step", 1.9), caption, "Pretraining curves over steps")
    ]


def _metrics_table(run: LoadedRun, artifact: LoadedArtifact) -> Table:
    metrics, dataset = artifact.metrics, run.metrics("tokenize")
    lines = [
        ("bits per byte", number(metrics.get("val_bpb"), 3),
         "Compressed size of held-out text under the model, per byte. A uniform guess costs 8."),
        ("tokens trained on", count(metrics.get("tokens")), _epochs(metrics, dataset)),
        ("training sequences never read", percent(metrics.get("unread_share")), _ended_by(metrics)),
        ("tokens per parameter", _ratio(metrics.get("tokens"), metrics.get("parameters")),
         "About 20 is compute-optimal (arXiv:2203.15556); below that, more data lowers the loss."),
        ("FLOPs utilization", percent(metrics.get("flops_utilization"), 1),
         f"Relative to plain matrix products on the same machine ({_rate(metrics)})."),
        ("precision", str(metrics.get("precision") or "not recorded"),
         "Of matrix products; master weights are fp32. " + _compiled(metrics)),
        ("steps skipped", count(metrics.get("skipped_steps")),
         "Steps with a non-finite or outlying loss or gradient; they update nothing."),
    ]  # fmt: skip
    return Table(("metric", "value", "meaning"), tuple(lines), "lrl")


def _epochs(metrics: dict[str, Any], dataset: dict[str, Any]) -> str:
    trained_on, unique = metrics.get("tokens"), dataset.get("train_tokens")
    if not (is_number(trained_on) and is_number(unique) and unique):
        return "Repeated tokens included."
    return f"{number(trained_on / unique, 1)} epochs over the training split."


def _ended_by(metrics: dict[str, Any]) -> str:
    key = metrics.get("ended_by")
    return f"The training ended at its limit `{visible(key)}`." if isinstance(key, str) else ""


def _ratio(value: Any, of: Any) -> str:
    return number(value / of, 1) if is_number(value) and is_number(of) and of else "not measured"


def _rate(metrics: dict[str, Any]) -> str:
    rate = metrics.get("matmul_tflops")
    return f"{number(rate)} TFLOP/s" if is_number(rate) else "rate not recorded"


def _compiled(metrics: dict[str, Any]) -> str:
    compiled = metrics.get("compiled")
    if compiled is None:
        return ""
    return "The step was compiled." if compiled else "The step was not compiled."
