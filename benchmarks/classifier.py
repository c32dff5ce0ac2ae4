"""A quality classifier trained on half of some labelled web pages, measured on the other half. Prints Markdown.

in:  JSON lines with `text` and `label` (1 = good), as the human labels of DCLM (Li et al. 2024, arXiv:2406.11794)
out: accuracy, F1, AUC and calibration on the other half, beside the larger class alone and fastText's own defaults

    python benchmarks/classifier.py dclm_majority_data.jsonl.gz

A hash of the text says which half it is in. Nothing was tuned on the half that is measured: the classifier's defaults
were chosen by cross-validation within the other one. Several seeds; F1 is the mean of both classes' F1.
"""

import argparse
import gzip
import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from groundup.core.progress import Reporter
from groundup.core.runtime import Runtime
from groundup.core.stage import StageContext
from groundup.text import fasttext_model
from groundup.text.batch import DocumentBatch
from groundup.text.curate import calibration
from groundup.text.curate.calibration import Scores, Truth
from groundup.text.curate.classifier import Classifier, classifier
from groundup.text.curate.steps.model_filter import ModelFilter
from groundup.text.documents import DOCUMENT_SCHEMA


@dataclass(frozen=True)
class Half:
    texts: list[str]
    truth: Truth


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("labelled", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    train, test = read(arguments.labelled)
    print(f"{len(train.texts)} training pages ({train.truth.mean():.0%} good), {len(test.texts)} test pages "
          f"({test.truth.mean():.0%}), {arguments.seeds} seeds: mean ± standard deviation.\n")  # fmt: skip
    print("| | accuracy | F1 | AUC | calibration error |\n|---|---:|---:|---:|---:|")
    majority = np.full(len(test.texts), train.truth.mean())
    print_row("the larger class alone", test.truth, [majority])
    recipes: dict[str, Callable[[Half, Half, int], Scores]] = {
        "fastText, its defaults": fasttext_defaults,
        "groundup, uncalibrated": lambda train, test, seed: ours(train, test, seed, calibrated=False),
        "groundup": ours,
    }
    for name, scores in recipes.items():
        runs = [scores(train, test, seed) for seed in range(arguments.seeds)]
        print_row(name, test.truth, runs)
    print_certainty(test.truth, runs)
    print_speed(test)


def read(path: Path) -> tuple[Half, Half]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    halves = []
    for first in (True, False):
        chosen = [row for row in rows if (digest(row["text"]) % 2 == 0) == first]
        halves.append(Half([row["text"] for row in chosen], np.array([row["label"] == 1 for row in chosen])))
    return halves[0], halves[1]


def digest(text: str) -> int:
    return int(hashlib.sha256(f"half {text}".encode()).hexdigest()[:8], 16)


def ours(train: Half, test: Half, seed: int, calibrated: bool = True) -> Scores:
    """[pages]: what the step `model_filter` measures with a classifier of defaults alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        loaded = ModelFilter().load(build(train, folder, seed)[0])
        scores = loaded.apply(batch(test.texts)).measures["quality"]
        back = loaded.calibration
        logits = (np.log(scores / (1 - scores)) - back.intercept) / back.slope
        return scores if calibrated else np.asarray(1 / (1 + np.exp(-logits)))


def build(train: Half, folder: Path, seed: int) -> tuple[Path, dict[str, Any]]:
    """The classifier's artifact and its metrics."""
    examples = folder / "examples.jsonl"
    rows = zip(train.texts, train.truth.tolist(), strict=True)
    examples.write_text("".join(json.dumps({"text": text, "label": int(good)}) + "\n" for text, good in rows))
    work = StageContext(folder / "classifier", Reporter(quiet=True))
    metrics = classifier(Classifier(labelled=(str(examples),), seed=seed), Runtime(), work)
    work.close()
    return work.path, metrics


def fasttext_defaults(train: Half, test: Half, seed: int) -> Scores:
    """[pages]: fastText as it comes, with word pairs, on the text as it is; as many use it."""
    one_line = [[" ".join(text.split()) for text in half.texts] for half in (train, test)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        for text, good in zip(one_line[0], train.truth, strict=True):
            file.write(f"__label__{'good' if good else 'bad'} {text}\n")
        file.flush()
        module = fasttext_model.binding(to_train=True)
        model = module.train_supervised(file.name, wordNgrams=2, thread=1, seed=seed, verbose=0)
    labels, chances = fasttext_model.predict(model, one_line[1])
    return np.where(labels == "good", chances, 1 - chances)


def batch(texts: list[str]) -> DocumentBatch:
    blank = dict.fromkeys(DOCUMENT_SCHEMA.names, "")
    return DocumentBatch(pa.Table.from_pylist([blank | {"text": text} for text in texts], DOCUMENT_SCHEMA))


def figures(truth: Truth, scores: Scores) -> list[float]:
    """Accuracy, macro F1, AUC, expected calibration error."""
    good, bad = (calibration.at_threshold(*pair, 0.5) for pair in ((truth, scores), (~truth, 1 - scores)))
    return [good["accuracy"], (good["f1"] + bad["f1"]) / 2, calibration.roc_auc(truth, scores),
            calibration.calibration_error(truth, scores)]  # fmt: skip


def print_row(name: str, truth: Truth, runs: list[Scores]) -> None:
    table = np.array([figures(truth, scores) for scores in runs])
    cells = [f"{mean:.3f} ± {spread:.3f}" for mean, spread in zip(table.mean(0), table.std(0), strict=True)]
    print(f"| {name} | {' | '.join(cells)} |")


def print_certainty(truth: Truth, runs: list[Scores]) -> None:
    """95 % intervals by bootstrap over the pages, and precision and recall as the manifest has them."""
    choose = np.random.default_rng(0)
    draws = [choose.integers(0, len(truth), len(truth)) for _ in range(1000)]
    table = np.array([figures(truth[rows], runs[0][rows]) for rows in draws])
    low, high = np.quantile(table, (0.025, 0.975), axis=0)
    summary = calibration.at_threshold(truth, runs[0], 0.5)
    print(f"\nOver the pages, seed 0, 95 % intervals: accuracy {low[0]:.3f} to {high[0]:.3f}, AUC {low[2]:.3f} to "
          f"{high[2]:.3f}. Precision {summary['precision']:.3f}, recall {summary['recall']:.3f}.")  # fmt: skip
    perfect = [calibration.calibration_error(choose.random(len(truth)) < runs[0], runs[0]) for _ in draws]
    print(f"On so few pages scores without any calibration error would show one of {np.mean(perfect):.3f}.")


def print_speed(half: Half) -> None:
    with tempfile.TemporaryDirectory() as name:
        begun = time.perf_counter()
        folder, metrics = build(half, Path(name), 0)
        trained = time.perf_counter() - begun
        step, whole = ModelFilter().load(folder), batch(half.texts * 4)
        step.apply(batch(half.texts[:1]))  # loads the model
        begun = time.perf_counter()
        step.apply(whole)
        applied = time.perf_counter() - begun
    size = float(whole.bytes.sum()) / 1e6
    print(
        f"{metrics['held_out']['models']} models in {trained:.1f} s; filtering {size / applied:.1f} MB/s, one process."
    )


if __name__ == "__main__":
    main()
