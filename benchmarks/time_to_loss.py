"""Time to loss: seconds of an AdamW + cosine Llama to reach groundup's loss, and an ablation of each choice.

in:  texts (the novels of the shared data), a folder for what is made of them and for finished runs
out: tables in the terminal; FOLDER/time_to_loss.json

    .venv/bin/python benchmarks/time_to_loss.py FOLDER --data ../shared/data/pretrain/novels

Both sides learn from the same rows in the same order, with the same tokenizer, the same number of parameters (within
1 %: the Llama's feed-forward is as wide as it takes) and the same engine, precision and tokens per step; the
validation is the same, all rows of it. Seconds are those of training steps alone, timed inside each run: compiling,
validating and saving aren't counted.

1. Ours trains for --minutes. A short run measures its speed and sets the number of steps, so the schedule ends in time.
2. The Llama's rate is tuned over --rates, each a whole run of the same minutes; while the best one is at the end of the
   list, the list grows by a factor of 2.
3. A cosine must know its end, so the Llama is trained anew with a horizon of F times its minutes for each F of
   --factors, at the tuned rate, until it is as good as ours. The seconds it needs are read off between two horizons,
   linearly in the logarithm of the seconds.
4. Each choice of ours is taken back alone, and each fast switch put on alone, in shorter runs of the same number of
   tokens (--ablation-minutes), with --seeds seeds, which decide both the weights at the start and the order of the
   rows: the difference in bits per byte (mean and 95 % interval of the paired differences, Student's t), and how much
   longer a step takes, in runs of --trial-steps. With --adamw-rate, the rate of "AdamW, not Muon", nothing else runs.

Run it alone on the machine. It takes hours; stopped and started again it goes on where it was.
"""

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from learning_runs import RunResult, Runs, interval, recipe, table

from groundup.model import flops, scaling
from groundup.train.pretrain import Pretrain

Change = dict[str, Any]

PROFILES: dict[str, Change] = {"default": {}, "portable": {"architecture": {"use": "qwen3"}}}
"""groundup's recipes: changes to the default of `groundup run`."""

BASELINE: Change = {
    "architecture": {"use": "llama"},
    "optimizer": {"use": "adamw", "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.95},
    "schedule": "cosine",
    "min_lr_ratio": 0.1,
}
"""The Llama recipe (https://arxiv.org/abs/2302.13971): AdamW, weight decay 0.1, cosine to a tenth of the peak."""

ABLATIONS: dict[str, Change] = {
    "AdamW at its tuned rate, not Muon": {"optimizer": {"use": "adamw"}},
    "no NorMuon": {"optimizer": {"normuon_beta2": 0.0}},
    "no weight decay": {"optimizer": {"weight_decay": 0.0}},
    "3 iterations, not 4": {"optimizer": {"ns_steps": 3}},
    "5 iterations, not 4": {"optimizer": {"ns_steps": 5}},
    "no norm on queries and keys": {"architecture": {"use": "llama"}},
    "cosine to a tenth, not linear to 0": {"schedule": "cosine", "min_lr_ratio": 0.1},
}
"""Ablations: choices of the first profile, removed one at a time."""

SWITCHES: dict[str, Change] = {
    "value embeddings": {"architecture": {"value_embeddings": True}},
    "residual scalars": {"architecture": {"residual_scalars": True}},
    "embedding scalars": {"architecture": {"embedding_scalars": True}},
    "ReLU^2, not SwiGLU": {"architecture": {"relu2": True}},
    "logit softcap 15": {"architecture": {"logit_softcap": 15.0}},
    "zero-initialised outputs": {"architecture": {"zero_init": True}},
}
"""The fast switches, each added alone to the first profile; most prevent export."""


@dataclass(frozen=True)
class Reached:
    """Cost of the baseline to reach a profile's loss."""

    seconds: float
    ratio: float
    exact: bool
    """False: it didn't reach the loss, and `seconds` is its longest run"""


def main() -> None:
    arguments = _arguments()
    runs = Runs(arguments.folder, arguments.data, arguments.vocab, arguments.seq_len, arguments.threads)
    base = _base(arguments)
    report: dict[str, Any] = {"arguments": {key: str(value) for key, value in vars(arguments).items()}}
    rates = [arguments.adamw_rate] if arguments.adamw_rate else []
    for name in () if rates else arguments.profiles:
        report[name] = _against_baseline(runs, base, name, arguments)
        rates.append(report[name]["rate"])
        _write(arguments.folder, report)
    if arguments.seeds:
        report["ablations"] = _ablations(runs, base, rates[0], arguments)
        _write(arguments.folder, report)


def _base(arguments: argparse.Namespace) -> Change:
    """Shape and batch of all runs."""
    shape = {"d_model": arguments.width}
    batch_tokens = arguments.batch_tokens or scaling.batch_tokens(arguments.depth)
    return {"depth": arguments.depth, "architecture": shape, "batch_tokens": batch_tokens}


def _against_baseline(
    runs: Runs, base: Change, profile: str, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Train a profile, and the baseline until it reaches the same loss; print and return the metrics."""
    ours_recipe = recipe(PROFILES[profile], base)
    seconds = 60 * arguments.minutes
    trained = runs.tokens_in(ours_recipe, seconds, arguments.trial_steps)
    ours = runs(ours_recipe.model_copy(update={"tokens": trained}))
    llama = _as_large(recipe(BASELINE, base), ours.parameters, arguments.vocab)
    once = runs.tokens_in(llama, seconds, arguments.trial_steps)
    tuned = _tuned(runs, llama, once, arguments.rates)
    best = min(tuned, key=lambda rate: tuned[rate].bits_per_byte)
    curve = _horizons(runs, _horizon(llama, once, best), arguments.factors, ours.bits_per_byte)
    reached = seconds_to(
        ours.bits_per_byte, [(run.seconds, run.bits_per_byte) for run in curve], ours.seconds
    )
    size = curve[0].parameters / ours.parameters
    assert abs(size - 1) < 0.01, f"the baseline has {size:.3f} times our parameters"
    _print_comparison(profile, ours, tuned, curve, reached)
    return {
        "rate": best,
        "ours": asdict(ours) | {"seconds": ours.seconds},
        "rates": {str(rate): asdict(run) for rate, run in tuned.items()},
        "horizons": [asdict(run) | {"seconds": run.seconds} for run in curve],
        "reached": asdict(reached),
    }


def _as_large(llama: Pretrain, parameters: int, vocab: int) -> Pretrain:
    """The baseline with the feed-forward width that is nearest to the given number of parameters."""
    config = llama.architecture.config(llama.depth, vocab_size=vocab, max_seq_len=64)
    more = round((parameters - flops.parameters(config)) / (3 * config.d_model * config.n_layers))
    changed = llama.architecture.model_copy(update={"d_ff": config.d_ff + more})
    return llama.model_copy(update={"architecture": changed}) if more else llama


def _horizon(llama: Pretrain, tokens: int, rate: float) -> Pretrain:
    optimizer = llama.optimizer.model_copy(update={"lr": rate})
    return llama.model_copy(update={"optimizer": optimizer, "tokens": tokens})


def _tuned(runs: Runs, llama: Pretrain, tokens: int, rates: list[float]) -> dict[float, RunResult]:
    """One run per learning rate, with lower or higher ones added until the best is not at the edge."""
    results: dict[float, RunResult] = {}
    waiting = sorted(rates)
    while waiting:
        results |= {rate: runs(_horizon(llama, tokens, rate)) for rate in waiting}
        best = min(results, key=lambda rate: results[rate].bits_per_byte)
        waiting = [best / 2] if best == min(results) else [best * 2] if best == max(results) else []
    return dict(sorted(results.items()))


def _horizons(runs: Runs, llama: Pretrain, factors: list[float], goal: float) -> list[RunResult]:
    """Runs of 1 and then `factors` times the baseline's tokens, up to the first that reaches `goal`."""
    curve: list[RunResult] = []
    for factor in sorted({1.0, *factors}):
        tokens = round(llama.tokens * factor / llama.batch_tokens) * llama.batch_tokens
        curve.append(runs(llama.model_copy(update={"tokens": tokens})))
        if curve[-1].bits_per_byte <= goal:
            break
    return curve


def seconds_to(goal: float, curve: list[tuple[float, float]], ours: float) -> Reached:
    """When runs of these (seconds, bits per byte), by growing horizon, come down to `goal`.

    Between two horizons the loss is taken as linear in log(seconds). Before the first one: the first one's seconds.
    """
    before = None
    for seconds, bits in curve:
        if bits <= goal:
            if before is not None:
                share = (before[1] - goal) / (before[1] - bits)
                seconds = math.exp((1 - share) * math.log(before[0]) + share * math.log(seconds))
            return Reached(seconds, seconds / ours, exact=True)
        before = (seconds, bits)
    return Reached(curve[-1][0], curve[-1][0] / ours, exact=False)


def _ablations(runs: Runs, base: Change, rate: float, arguments: argparse.Namespace) -> dict[str, Any]:
    """Ablations of the first profile and of each switch; prints and returns the tables.

    rate: AdamW's best.
    """
    profile, trial = PROFILES[arguments.profiles[0]], arguments.trial_steps
    whole = recipe(profile, base)
    tokens = runs.tokens_in(whole, 60 * arguments.ablation_minutes, trial)
    seeds = [{"seed": seed, "tokens": tokens} for seed in range(arguments.seeds)]
    ours = [runs(recipe(profile, base, seed)) for seed in seeds]
    mean, half = interval([run.bits_per_byte for run in ours])
    results: dict[str, Any] = {"tokens": tokens, "ours": [asdict(run) for run in ours]}
    tables = {"ablations": ("One choice taken back", ABLATIONS), "switches": ("One switch put on", SWITCHES)}
    for title, changes in (tables[name] for name in arguments.tables):
        rows = [[f"{arguments.profiles[0]} (bits per byte)", f"{mean:.4f}", f"{half:.4f}", "1.00"]]
        for name, change in changes.items():
            if change.get("optimizer", {}).get("use") == "adamw":
                change = {"optimizer": change["optimizer"] | {"lr": rate}}
            other = [runs(recipe(profile, change, base, seed)) for seed in seeds]
            longer = runs.speed(whole, trial) / runs.speed(recipe(profile, change, base), trial)
            worse, half_worse = interval(
                [b.bits_per_byte - a.bits_per_byte for a, b in zip(ours, other, strict=True)]
            )
            rows.append([name, f"{worse:+.4f}", f"{half_worse:.4f}", f"{longer:.2f}"])
            results[name] = {"worse": worse, "half_interval": half_worse, "step_time": longer,
                           "runs": [asdict(run) for run in other]}  # fmt: skip
        print(f"\n{title}, {arguments.seeds} seeds, {tokens:,} tokens each")
        print(table(["", "bits per byte", "+- 95 %", "step time"], rows), flush=True)
    return results


def _print_comparison(
    profile: str, ours: RunResult, tuned: dict[float, RunResult], curve: list[RunResult], reached: Reached
) -> None:
    rows = [[f"{profile} (ours)", *_cells(ours)]]
    rows += [[f"Llama, rate {rate:g}", *_cells(run)] for rate, run in tuned.items()]
    rows += [[f"Llama, horizon {run.seconds / curve[0].seconds:.2f}", *_cells(run)] for run in curve[1:]]
    print("\n" + table(["", "bits per byte", "seconds", "tokens", "tokens/s", "parameters"], rows))
    relation = "needs" if reached.exact else "is not there after"
    print(f"AdamW + cosine Llama {relation} {reached.seconds:.0f} s for what {profile} learns in "
          f"{ours.seconds:.0f} s: {reached.ratio:.2f} times as long")  # fmt: skip


def _cells(run: RunResult) -> list[str]:
    return [f"{run.bits_per_byte:.4f}", f"{run.seconds:.0f}", f"{run.tokens:,}", f"{run.tokens_per_second:,.0f}",
            f"{run.parameters:,}"]  # fmt: skip


def _write(folder: Path, report: dict[str, Any]) -> None:
    (folder / "time_to_loss.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", nargs="+", required=True, help="files or folders of text")
    parser.add_argument("--profiles", nargs="+", default=list(PROFILES), choices=list(PROFILES))
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--rates", nargs="+", type=float, default=[1e-3, 2e-3, 4e-3, 8e-3])
    parser.add_argument("--factors", nargs="+", type=float, default=[1.5, 2, 2.5, 3])
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the ablations; 0 = no ablations")
    parser.add_argument("--ablation-minutes", type=float, default=2)
    tables = ["ablations", "switches"]
    parser.add_argument("--tables", nargs="+", default=tables, choices=tables)
    parser.add_argument(
        "--adamw-rate",
        type=float,
        default=0,
        help="AdamW learning rate of the ablations; when set, only ablations run",
    )
    parser.add_argument(
        "--trial-steps", type=int, default=40, help="steps of the run that measures the speed"
    )
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--batch-tokens", type=int, default=0, help="tokens per step; 0 = from the rules")
    parser.add_argument("--threads", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
