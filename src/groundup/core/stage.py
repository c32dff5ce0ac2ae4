"""A stage of the pipeline, and the context that it runs in.

in:  a function `(recipe, runtime, context, *artifacts) -> metrics`
out: a `Stage`: the function with its name, its version, the kind of artifact that it makes, and its inputs

builder.py calls stages and publishes what they make.
"""

import importlib
import inspect
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, ParamSpec, Self, get_origin

from groundup.core.digests import DigestCache
from groundup.core.metrics import MetricsLog, read_metrics
from groundup.core.progress import Reporter, Tracker
from groundup.core.recipe import Recipe
from groundup.core.runtime import Runtime
from groundup.core.store import MANIFEST, Artifact, ArtifactKind
from groundup.core.trackers import Background, Run, open_trackers

METRICS = "metrics.jsonl"
Metrics = dict[str, Any]
Inputs = dict[str, Artifact | Mapping[str, Artifact]]
"""The artifacts that a stage reads, by the name of the function's parameter."""
ExternalDigest = Callable[[Any, DigestCache], Any]
HeadlineMetrics = tuple[str, ...] | Callable[[Any], tuple[str, ...]]
P = ParamSpec("P")

__all__ = ["Artifact", "ArtifactKind", "Inputs", "Metrics", "Stage", "StageContext", "StageInput", "stage"]


@dataclass(frozen=True)
class StageInput:
    """A parameter of a stage's function that takes artifacts.

    many: it takes a mapping of artifacts by name. optional: it has a default.
    """

    name: str
    many: bool
    optional: bool


@dataclass(frozen=True)
class Stage(Generic[P]):
    """A stage of the pipeline. Calling it calls its function.

    version: raised by hand when the function's meaning changes.
    kind: kind of artifact that it makes, or recipe -> kind.
    stage_name: name of its artifacts, or recipe -> name.
    external_digest: (recipe, kept digests) -> digest (plain JSON) of what the function reads from outside the store;
        None = nothing.
    headline_metrics: names of the metrics that `groundup show` lists, or recipe -> names.
    reads_records: whether it reads the manifests, metrics and logs of its inputs too, not only their content.
    ranks: whether the function supports being called by several ranks at once.
    stage_label: name within a run; "" = the stage's name.
    """

    function: Callable[P, Metrics]
    version: int
    kind: ArtifactKind | Callable[[Any], ArtifactKind]
    stage_name: str | Callable[[Any], str]
    external_digest: ExternalDigest | None = None
    ranks: bool = False
    reads_records: bool = False
    headline_metrics: HeadlineMetrics = ()
    stage_label: str = ""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Metrics:
        return self.function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by name, as a function is: other processes import it."""
        return _import_stage, (self.function.__module__, self.function.__qualname__)

    def name(self, recipe: Recipe) -> str:
        """Name of the artifact that it makes of `recipe`."""
        return self.stage_name if isinstance(self.stage_name, str) else self.stage_name(recipe)

    def label(self, recipe: Recipe) -> str:
        """Name within a run."""
        return self.stage_label or self.name(recipe)

    def labelled(self, label: str) -> Self:
        """The same stage under another name within a run."""
        return replace(self, stage_label=label)

    def artifact_kind(self, recipe: Recipe) -> ArtifactKind:
        """Kind of the artifact that it makes of `recipe`."""
        return self.kind(recipe) if callable(self.kind) else self.kind

    def headline(self, recipe: Recipe) -> tuple[str, ...]:
        """Names of the metrics that `groundup show` lists."""
        names = self.headline_metrics
        return names(recipe) if callable(names) else names

    @cached_property
    def inputs(self) -> tuple[StageInput, ...]:
        """The artifacts that the function reads: its parameters after recipe, runtime and context."""
        parameters = list(inspect.signature(self.function, eval_str=True).parameters.values())[3:]
        return tuple(
            StageInput(item.name, get_origin(item.annotation) is Mapping, item.default is not item.empty)
            for item in parameters
        )

    def bind(self, *args: Any, **kwargs: Any) -> Inputs:
        """Each input under its parameter's name, absent optional ones left out. Raises TypeError if one is missing."""
        bound = inspect.signature(self.function).bind(None, None, None, *args, **kwargs).arguments
        return {item.name: bound[item.name] for item in self.inputs if bound.get(item.name) is not None}


def stage(
    version: int,
    kind: ArtifactKind | Callable[[Any], ArtifactKind],
    external_digest: ExternalDigest | None = None,
    name: Callable[[Any], str] | None = None,
    ranks: bool = False,
    reads_records: bool = False,
    headline: HeadlineMetrics = (),
) -> Callable[[Callable[P, Metrics]], Stage[P]]:
    """Decorator that makes a function a stage; see `Stage`. Without `name` the stage is called after the function."""

    def decorate(function: Callable[P, Metrics]) -> Stage[P]:
        return Stage(
            function,
            version,
            kind,
            name or function.__name__,
            external_digest,
            ranks,
            reads_records,
            headline,
        )

    return decorate


def flat_inputs(inputs: Inputs) -> dict[str, Artifact]:
    """Every artifact by parameter; those of a mapping by `parameter.name`."""
    flat: dict[str, Artifact] = {}
    for name, value in inputs.items():
        if isinstance(value, Artifact):
            flat[name] = value
        else:
            flat |= {f"{name}.{key}": item for key, item in value.items()}
    return flat


def _import_stage(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


RESUME = "resume"
"""Folder of the resume state in an unfinished artifact."""


class StageContext:
    """The folder, log and progress of a stage. Kept after a crash, so that the stage can resume from it."""

    def __init__(
        self,
        path: Path,
        reporter: Reporter,
        trackers: Callable[[], Sequence[Background]] = tuple,
        keeps_log: bool = True,
    ) -> None:
        """`trackers` opens them; called when the first line is logged, since most stages log none.

        keeps_log: False for all but one of the ranks that share a context.
        """
        path.mkdir(parents=True, exist_ok=True)
        self.path, self.keeps_log = path, keeps_log
        self.temporary = path / RESUME
        self.temporary.mkdir(exist_ok=True)
        self._reporter = reporter
        self._open_trackers = trackers
        self._log: MetricsLog | None = None
        self.external_read: Any = None
        """The external digest of what the stage has read, set by stages that hash their files while reading them."""

    @property
    def quiet(self) -> bool:
        """Whether progress is not shown."""
        return self._reporter.console.quiet

    def file(self, name: str) -> Path:
        """Where to write the file `name`; its folder exists."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def previous_artifacts(self) -> list[Path]:
        """Published artifacts of the same stage, newest first; a stage may reuse parts of them."""
        stage = self.path.name.rsplit("-", 1)[0]
        folders = [
            path.parent for path in self.path.parent.glob(f"{stage}-*/{MANIFEST}") if path.parent.suffix == ""
        ]
        return sorted(folders, key=lambda path: (path / MANIFEST).stat().st_mtime_ns, reverse=True)

    def info(self, text: str) -> None:
        """Print one line for the user."""
        self._reporter.info(f"  {text}")

    def track(
        self, label: str, total: float | None, unit: str = "it", start: float = 0
    ) -> AbstractContextManager[Tracker]:
        """Progress bar: `with context.track("encode", n, "documents") as tracker: ...`."""
        return self._reporter.track(label, total, unit, start)

    def watch(
        self, label: str, total: float, unit: str = "steps", start: float = 0
    ) -> AbstractContextManager[Tracker]:
        """Like `track`, for training: in a terminal, a dashboard of the logged metrics."""
        return self._reporter.watch(label, total, unit, start, read_metrics(self.path / METRICS))

    def log(self, **values: Any) -> None:
        """Append a line to `metrics.jsonl`."""
        if self.keeps_log:
            self._reporter.show(self._metrics().log(**values))

    def rewind_log(self, step: int) -> None:
        """Delete the lines after `step`, which a resumed stage writes again."""
        if self.keeps_log:
            self._metrics().rewind(step)

    def close_log(self) -> None:
        """Close the log; the trackers write their last points."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def close(self) -> None:
        """Close the log, and delete the resume state and unfinished files."""
        self.close_log()
        shutil.rmtree(self.temporary, ignore_errors=True)
        for unfinished in self.path.rglob("*.part"):
            unfinished.unlink()

    def _metrics(self) -> MetricsLog:
        if self._log is None:
            self._log = MetricsLog(self.path / METRICS, self._open_trackers())
        return self._log


def open_context(part: Path, reporter: Reporter, runtime: Runtime, keeps_log: bool = True) -> StageContext:
    """The context of the artifact that is being made in `part` (<workspace>/artifacts/<name>.part)."""

    def trackers() -> Sequence[Background]:
        run = Run.load(part.stem, part.parent.parent / "trackers", part / RESUME)
        return open_trackers(runtime.trackers, run, reporter.info)

    return StageContext(part, reporter, trackers, keeps_log)
