"""Stage `classifier`: trains a fastText quality classifier on positive and negative examples.

in:  files (or an earlier corpus) of positive and of negative examples, or of labelled examples
out: model.bin, calibration.json; metrics on held-out examples

The quality filter of DCLM (Li et al. 2024, https://arxiv.org/abs/2406.11794) is built this way: 200,000 documents in
the style of good answers (OpenHermes 2.5, ELI5) against as many random pages of the crawl, bigrams, the best tenth
kept. Differences: text is lower-cased and punctuation separated (see fasttext_model.py); texts in both classes are
removed; scores are calibrated (see calibration.py); the number of epochs depends on the number of examples. One
thread and one seed: the same examples give the same bytes. For toxic or adult text train a second classifier and
set `max_score` in its `model_filter`. Measurements: benchmarks/classifier.py.
"""

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from groundup.core.atomic_io import write_json
from groundup.core.digests import UNCACHED, DigestCache
from groundup.core.errors import DataError
from groundup.core.recipe import Recipe
from groundup.core.rng import hash_fraction
from groundup.core.runtime import Runtime
from groundup.core.stage import StageContext, stage
from groundup.core.store import MANIFEST
from groundup.text import fasttext_model
from groundup.text.curate import calibration
from groundup.text.curate.calibration import Scores, Truth
from groundup.text.curate.classifier_data import LABELLED, NEGATIVE, POSITIVE, Examples, gather
from groundup.text.documents import DOCUMENTS, spell_reasons
from groundup.text.ingest.ingest_task import content_digest
from groundup.text.ingest.sources.files import Files

Rows = NDArray[np.int64]

MODEL, CALIBRATION = "model.bin", "calibration.json"
THRESHOLD = 0.5
"""Probability from which held-out documents are predicted positive, for the metrics in the manifest."""
MIN_EXAMPLES = 10
"""Minimum examples per class."""
ENOUGH_HELD_OUT = 1000
"""Held-out documents that suffice for calibration and metrics."""


class Classifier(Recipe):
    """Training data and hyperparameters. Every ingest format is supported."""

    not_identity: ClassVar[frozenset[str]] = frozenset({"name", "positive", "negative", "labelled"})

    name: str = Field(
        default="quality", pattern=r"^[a-z][a-z0-9_]*$", description="name that `model_filter` steps refer to"
    )
    positive: tuple[str, ...] = Field(
        default=(), description="folders, files and globs of positive examples, or the folder of a corpus"
    )
    negative: tuple[str, ...] = Field(
        default=(), description="the same for negative examples, ideally a sample of the corpus to filter"
    )
    labelled: tuple[str, ...] = Field(default=(), description="files with a label per example")
    text_field: str = Field(default="text", description="column or JSON field of the text")
    label_field: str = Field(
        default="label", description="column or JSON field of the label, in `labelled` files"
    )
    positive_label: str = Field(
        default="1", description="label of positive examples; all others are negative"
    )
    max_documents: int = Field(
        default=200_000, ge=2, description="maximum examples per class; more are sampled"
    )
    word_ngrams: int = Field(default=2, ge=1, le=5, description="maximum length of word n-gram features")
    dim: int = Field(default=16, ge=1, description="dimension of the word vectors")
    epochs: int = Field(
        default=0, ge=0, description="training epochs; 0 = 25 for few examples, 5 from 20,000 on"
    )
    lr: float = Field(default=0.5, gt=0, description="initial learning rate; decays linearly to 0")
    min_count: int = Field(default=2, ge=1, description="minimum word frequency of a feature")
    bucket: int = Field(default=1_000_000, ge=1, description="hash buckets for n-gram features")
    held_out: float = Field(default=0.1, gt=0, le=0.5, description="share of examples held out for metrics")
    seed: int = Field(default=0, ge=0)

    def sources(self) -> dict[str, Files]:
        """The sources to read, per class of examples."""
        fields = {"text": self.text_field}
        inputs = {
            POSITIVE: (self.positive, fields),
            NEGATIVE: (self.negative, fields),
            LABELLED: (self.labelled, fields | {"licence": self.label_field}),
        }
        return {
            kind: Files(paths=tuple(map(_documents, paths)), fields=mapped)
            for kind, (paths, mapped) in inputs.items()
            if paths
        }

    def passes(self, examples: int) -> int:
        """`epochs`, or as many as show the model 100,000 examples."""
        return self.epochs or min(max(100_000 // examples, 5), 25)


def external_digest(recipe: Classifier, digests: DigestCache = UNCACHED) -> dict[str, list[list[str]]]:
    """Files and content digests per class. Raises DataError for a path that matches nothing."""
    files = {}
    for kind, source in recipe.sources().items():
        try:
            files[kind] = sorted(
                [file.path, content_digest(source, file, digests)] for file in source.files()
            )
        except DataError as error:
            raise DataError(f"classifier {recipe.name!r}: {kind} {error}") from None
    return files


@stage(version=2, kind="classifier", external_digest=external_digest)
def classifier(recipe: Classifier, runtime: Runtime, context: StageContext) -> dict[str, Any]:
    """Train, calibrate and evaluate. Raises DataError if a class has too few examples.

    Cross-validation: parts are held out in turn, each with a model of its own, until enough documents are measured. The
    first model is the artifact.
    """
    examples = gather(recipe.sources(), recipe.positive_label, recipe.max_documents, recipe.seed)
    _log_summary(context, examples)
    _refuse_too_few(recipe, examples)
    part = np.array([hash_fraction(f"held out {text}") for text in examples.texts]) // recipe.held_out
    enough = math.ceil(ENOUGH_HELD_OUT / (recipe.held_out * len(part)))
    models = min(enough, int(1 / recipe.held_out))
    scores = np.full(len(part), np.nan)
    with context.track("train", models, "models") as progress:
        for number in range(models):
            rows, others = np.flatnonzero(part != number), np.flatnonzero(part == number)
            model = train(recipe, examples, rows, context.temporary / "examples.txt")
            if number == 0:
                model.save_model(str(context.file(MODEL)))
            scores[others] = score(model, [examples.texts[row] for row in others])
            progress.advance(1)
    measured = np.isfinite(scores)
    truth, scores = examples.positive[measured], scores[measured]
    write_json(context.file(CALIBRATION), calibration.calibrate(truth, scores).as_json())
    held_out_metrics = evaluate(truth, scores)
    auc, accuracy, baseline = (held_out_metrics[key] for key in ("auc", "accuracy", "majority_baseline"))
    context.info(
        f"{len(truth):,} held-out documents: AUC {auc:.3f}, accuracy {accuracy:.3f} (majority class {baseline:.3f})"
    )
    return {
        "examples": _counts(examples),
        "held_out": held_out_metrics | {"models": models},
        "rejected": dict(sorted(examples.rejected.items())),
    }


def train(recipe: Classifier, examples: Examples, rows: Rows, scratch: Path) -> Any:
    """fastText model of these examples, written to the file `scratch`. Raises DataError if training fails."""
    with scratch.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            kind = POSITIVE if examples.positive[row] else NEGATIVE
            file.write(f"{fasttext_model.LABEL}{kind} {examples.texts[row]}\n")
    try:
        return fasttext_model.binding(to_train=True).train_supervised(
            input=str(scratch), wordNgrams=recipe.word_ngrams, dim=recipe.dim, epoch=recipe.passes(len(rows)),
            lr=recipe.lr, minCount=recipe.min_count, bucket=recipe.bucket, seed=recipe.seed, thread=1, verbose=0,
        )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        raise DataError(f"classifier {recipe.name!r}: fastText says: {error} Try a smaller lr.") from None


def score(model: Any, texts: list[str]) -> Scores:
    """[texts]: uncalibrated probability of the positive class, for texts prepared by `fasttext_model.tokens`."""
    labels, chances = fasttext_model.predict(model, texts)
    return np.where(labels == POSITIVE, chances, 1 - chances)


def evaluate(truth: Truth, scores: Scores) -> dict[str, Any]:
    """Metrics of uncalibrated `scores` before and after calibration.

    Each half of the documents is calibrated on the other half, so no metric is computed on its own fit.
    """
    calibrated = np.empty_like(scores)
    even = np.where(truth, np.cumsum(truth), np.cumsum(~truth)) % 2 == 0  # both classes in either half
    for half in (even, ~even):
        calibrated[half] = calibration.calibrate(truth[~half], scores[~half])(scores[half])
    return {
        "documents": len(truth),
        "positive": int(truth.sum()),
        "majority_baseline": float(max(truth.mean(), 1 - truth.mean())),
        **calibration.at_threshold(truth, calibrated, THRESHOLD),
        "auc": calibration.roc_auc(truth, scores),
        "average_precision": calibration.average_precision(truth, scores),
        "calibration_error": calibration.calibration_error(truth, calibrated),
        "calibration_error_before": calibration.calibration_error(truth, scores),
        "reliability": calibration.reliability(truth, calibrated),
    }


def _counts(examples: Examples) -> dict[str, int]:
    positive = int(examples.positive.sum())
    return {
        "read_positive": examples.read[POSITIVE],
        "read_negative": examples.read[NEGATIVE],
        "in_both_classes": examples.in_both,
        "positive": positive,
        "negative": len(examples.texts) - positive,
    }


def _log_summary(context: StageContext, examples: Examples) -> None:
    positive = int(examples.positive.sum())
    context.info(f"{positive:,} positive and {len(examples.texts) - positive:,} negative examples")
    if examples.in_both:
        context.info(f"{examples.in_both:,} texts are in both classes, and left out")
    if examples.rejected:
        context.info(f"examples rejected: {spell_reasons(examples.rejected)}")


def _refuse_too_few(recipe: Classifier, examples: Examples) -> None:
    for kind, belongs in ((POSITIVE, examples.positive), (NEGATIVE, ~examples.positive)):
        if belongs.sum() >= MIN_EXAMPLES:
            continue
        where = [f"{key} = {list(paths)}" for key in (kind, LABELLED) if (paths := getattr(recipe, key))]
        facts = (
            [f"{examples.read[kind]} read from {' and '.join(where)}"] if where else ["no files are given"]
        )
        if examples.in_both:
            facts.append(f"{examples.in_both} left out because they are in both classes")
        if examples.labels:
            facts.append(
                f"labels met: {spell_reasons(examples.labels)}, positive_label is {recipe.positive_label!r}"
            )
        if examples.rejected:
            facts.append(f"rejected: {spell_reasons(examples.rejected)}")
        raise DataError(
            f"classifier {recipe.name!r}: {belongs.sum()} different {kind} examples; {MIN_EXAMPLES} are needed. "
            f"It has: {'; '.join(facts)}. Give more under [[classifiers]], as `{kind}` or `labelled`."
        )


def _documents(path: str) -> str:
    """The documents of an earlier corpus, if `path` is one; else `path`."""
    folder = Path(path).expanduser()
    return (
        str(folder / DOCUMENTS) if (folder / MANIFEST).is_file() and (folder / DOCUMENTS).is_dir() else path
    )
