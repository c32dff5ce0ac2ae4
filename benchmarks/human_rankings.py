"""Reward models on rankings by people: held-out accuracy beside chance and the length of a response.

    python benchmarks/human_rankings.py START DATA [--tokens 200000]

START: folder of a chat model. DATA: folder with oasst_ranked_pairs.jsonl.gz, autoj_pairwise.jsonl.gz,
llmbar_mtbench.jsonl and hh_harmless_base_test.jsonl.gz. For each file a reward model is trained on 80 % of its prompts
and measured on the others; intervals resample prompts.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from groundup.align.align import train_with
from groundup.align.data.data import Data, cleaned, mixed
from groundup.align.data.datasets.preferences import Preferences
from groundup.align.methods import MethodContext
from groundup.align.methods.reward import Reward
from groundup.core.progress import Reporter
from groundup.core.runtime import Runtime
from groundup.core.stage import StageContext
from groundup.evaluate.alignment_data import AlignmentData
from groundup.tokens.tokenizer import Tokenizer

FILES: dict[str, dict[str, Any]] = {
    "oasst_ranked_pairs.jsonl.gz": {},
    "autoj_pairwise.jsonl.gz": {"votes": {"0": "a", "1": "b", "2": "tie"}},
    "llmbar_mtbench.jsonl": {"votes": {"1": "a", "2": "b"}},
    "hh_harmless_base_test.jsonl.gz": {},
}


def measured(start: Path, path: Path, settings: dict[str, Any], tokens: int, work: Path) -> dict[str, Any]:
    """Metrics of a reward model that is trained on one file."""
    dataset = Preferences(paths=(str(path),), held_out=0.2, **settings)
    records = list(dataset.records(None, lambda entry: None))
    tables, _ = cleaned(Data(datasets=(dataset,)), [records], work / "clean")
    stage = StageContext(work / "reward", Reporter(quiet=True))
    context = MethodContext(
        Runtime(), stage, Tokenizer.load(start), AlignmentData(mixed([dataset], tables)), {"start": start}
    )
    return train_with(Reward(epochs=2.0, max_tokens=tokens), context)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("start", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tokens", type=int, default=200_000, help="maximum training tokens per file")
    arguments = parser.parse_args()
    for name, settings in FILES.items():
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as work:
            metrics = measured(arguments.start, arguments.data / name, settings, arguments.tokens, Path(work))
        shown = ("rankings", "held_out_pairs", "accuracy", "accuracy_interval", "accuracy_length_only",
                 "accuracy_by_length", "epochs")  # fmt: skip
        line = {"file": name, "seconds": round(time.monotonic() - began)} | {
            key: metrics.get(key) for key in shown
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
