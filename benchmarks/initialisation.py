"""Initial weights: bits per byte with and without the induction circuit, by training tokens.

in:  texts, a folder for what is made of them and for finished runs
out: a table in the terminal; FOLDER/initialisation.json

    .venv/bin/python benchmarks/initialisation.py FOLDER --data ../shared/data/pretrain/novels

All runs have the shape, batch and rules of the preset `stdlib`; only `init`, tokens and seed differ. The gain is
what the circuit saves: positive where it lowers the loss. A gain that falls with the tokens shows where the circuit has
become something that training finds by itself.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from learning_runs import RunResult, Runs, interval, recipe, table

from groundup import presets
from groundup.train.pretrain import Pretrain

INITS = ("standard", "induction")


def main() -> None:
    arguments = _arguments()
    runs = Runs(arguments.folder, arguments.data, arguments.vocab, arguments.seq_len, arguments.threads)
    results = {
        tokens: {init: [runs(one_run(init, tokens, seed)) for seed in arguments.seeds] for init in INITS}
        for tokens in sorted(arguments.tokens)
    }
    print("\nBits per byte on all validation rows, mean over the seeds\n" + table(*rows_of(results)))
    report: dict[str, Any] = {
        "arguments": {key: str(value) for key, value in vars(arguments).items()},
        "runs": {
            tokens: {init: [asdict(run) for run in tried] for init, tried in by_init.items()}
            for tokens, by_init in results.items()
        },
    }
    (arguments.folder / "initialisation.json").write_text(
        json.dumps(report, indent=1) + "\n", encoding="utf-8"
    )


def one_run(init: str, tokens: int, seed: int) -> Pretrain:
    """The preset's pretraining with these values."""
    return recipe(presets.stdlib()["pretrain"], {"init": init, "tokens": tokens, "seed": seed})


def rows_of(results: dict[int, dict[str, list[RunResult]]]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table."""
    rows = []
    for tokens, by_init in results.items():
        losses = {init: [run.bits_per_byte for run in tried] for init, tried in by_init.items()}
        means = [f"{interval(values)[0]:.4f}" for values in losses.values()]
        gains = [a - b for a, b in zip(losses["standard"], losses["induction"], strict=True)]
        mean, half = interval(gains)
        rows.append([f"{tokens:,}", *means, f"{mean:+.4f}" + ("" if len(gains) < 2 else f" +- {half:.4f}")])
    return ["tokens", *INITS, "gain"], rows


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", nargs="+", required=True, help="files or folders of text")
    parser.add_argument("--tokens", type=int, nargs="+", default=[500_000, 1_000_000, 2_000_000, 4_000_000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--threads", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
