"""Learning rate transfer across depths: three depths, the learning rate tuned at each.

in:  texts, a folder for what is made of them and for finished runs
out: a table in the terminal; FOLDER/one_dial.json

    .venv/bin/python benchmarks/one_dial.py FOLDER --data ../shared/data/pretrain/novels

Depth is the only number that is set; width, heads, tokens per step, tokens in all and both rates follow from it by
`model/scaling.py`. All rates are then multiplied by each factor of --factors. The factor that is best at the smallest
depth is what one would use at the largest: the table says how much worse its loss there is than that of the best
factor there, which is meant to be 5 % or less. --share shortens all runs alike;
the rules know, for the rates depend on the number of tokens.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from learning_runs import RunResult, Runs, recipe, table

from groundup.train.pretrain import Pretrain


def main() -> None:
    arguments = _arguments()
    runs = Runs(arguments.folder, arguments.data, arguments.vocab, arguments.seq_len, arguments.threads)
    results = {depth: _tuned(runs, arguments, depth) for depth in sorted(arguments.depths)}
    best = {
        depth: min(tried, key=lambda factor: tried[factor].bits_per_byte) for depth, tried in results.items()
    }
    rows = []
    for depth, tried in results.items():
        size = next(iter(tried.values()))
        marked = [
            f"{run.bits_per_byte:.4f}{'*' if factor == best[depth] else ' '}" for factor, run in tried.items()
        ]
        rows.append([f"{depth}", f"{size.parameters:,}", f"{size.tokens:,}", *marked])
    head = ["depth", "parameters", "tokens", *(f"x {factor:g} " for factor in sorted(arguments.factors))]
    print("\nBits per byte by learning rate factor, relative to the rules (* = best)\n" + table(head, rows))
    smallest, largest = min(results), max(results)
    excess = (
        results[largest][best[smallest]].bits_per_byte / results[largest][best[largest]].bits_per_byte - 1
    )
    print(f"Factor {best[smallest]:g}, best at depth {smallest}, costs {excess:.2%} at depth {largest}")
    report: dict[str, Any] = {
        "arguments": {key: str(value) for key, value in vars(arguments).items()},
        "runs": {
            depth: {factor: asdict(run) for factor, run in tried.items()} for depth, tried in results.items()
        },
        "best": best,
        "excess": excess,
    }
    (arguments.folder / "one_dial.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _tuned(runs: Runs, arguments: argparse.Namespace, depth: int) -> dict[float, RunResult]:
    """One run per learning rate factor at this depth."""
    dial = {"depth": depth, "optimizer": {"use": arguments.optimizer}}
    whole = recipe(dial).resolved()
    tokens = max(whole.batch_tokens, int(whole.tokens * arguments.share))
    plan = recipe(dial, {"tokens": tokens}).resolved()
    return {factor: runs(_scaled(plan, factor)) for factor in sorted(arguments.factors)}


def _scaled(plan: Pretrain, factor: float) -> Pretrain:
    """The recipe with every learning rate multiplied."""
    rates = {
        name: getattr(plan.optimizer, name) * factor
        for name in ("lr", "adam_lr")
        if name in type(plan.optimizer).model_fields
    }
    return plan.model_copy(update={"optimizer": plan.optimizer.model_copy(update=rates)})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", nargs="+", required=True, help="files or folders of text")
    parser.add_argument("--depths", nargs="+", type=int, default=[2, 3, 4])
    parser.add_argument("--factors", nargs="+", type=float, default=[0.25, 0.5, 1, 2, 4])
    parser.add_argument(
        "--share", type=float, default=0.04, help="fraction of the tokens that the rules give"
    )
    parser.add_argument("--optimizer", default="muon", choices=["muon", "adamw"])
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--threads", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
