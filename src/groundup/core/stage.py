"""Stages and the builder: make a thing once, know where it came from.

in:  a stage function, its recipe, and the artifacts it reads
out: an artifact whose folder is named by the fingerprint of exactly those

A stage is a function `(recipe, runtime, out, *artifacts) -> metrics`. The builder skips what is ready and runs
the rest. `groundup plan` and `groundup status` run the same pipeline with a builder that builds nothing.
"""

import inspect
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from groundup.core.atomic_io import explain_disk_errors
from groundup.core.environment import environment
from groundup.core.fingerprint import digest, fingerprint_payload
from groundup.core.metrics import MetricsLog, read_metrics
from groundup.core.progress import Reporter, Tracker
from groundup.core.recipe import Recipe
from groundup.core.runtime import Runtime
from groundup.core.store import MANIFEST, Artifact, Store, read_manifest, verify
from groundup.core.trackers import Background, Run, open_trackers, require

METRICS = "metrics.jsonl"
Metrics = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Metrics])
Runner = Callable[[Callable[..., Metrics], Recipe, Runtime, "StageContext", dict[str, Artifact]], Metrics]
"""Calls a stage function with its recipe, runtime, work and inputs, here or in other processes."""

__all__ = ["Artifact", "Builder", "Metrics", "StageContext", "StageReport", "stage"]


def stage(
    version: int,
    outside: Callable[[Any], Any] | None = None,
    name: Callable[[Any], str] | None = None,
    ranks: bool = False,
) -> Callable[[F], F]:
    """Mark a function as a stage.

    version: raised by hand when the function's meaning changes.
    outside: recipe -> digest (plain JSON) of what the stage reads from outside the store.
    name: recipe -> the stage's name, where it isn't the function's.
    ranks: several processes may call the function at once, as ranks that work together.
    """

    def mark(function: F) -> F:
        function.stage_version = version  # type: ignore[attr-defined]
        function.stage_outside = outside  # type: ignore[attr-defined]
        function.stage_name = name or (lambda recipe: function.__name__)  # type: ignore[attr-defined]
        function.stage_ranks = ranks  # type: ignore[attr-defined]
        return function

    return mark


class StageContext:
    """What a stage writes into. Kept after a crash, so a stage looks in it for what to resume from."""

    def __init__(
        self,
        path: Path,
        reporter: Reporter,
        trackers: Callable[[], Sequence[Background]] = tuple,
        keeps_log: bool = True,
    ) -> None:
        """`trackers` opens them; called when the first line is logged, since most stages log none.

        keeps_log: False for all but one of the ranks that share a work.
        """
        path.mkdir(parents=True, exist_ok=True)
        self.path, self.keeps_log = path, keeps_log
        self.temporary = path / "resume"
        self.temporary.mkdir(exist_ok=True)
        self._reporter = reporter
        self._open_trackers = trackers
        self._log: MetricsLog | None = None

    @property
    def quiet(self) -> bool:
        """Whether nobody watches."""
        return self._reporter.console.quiet

    def file(self, name: str) -> Path:
        """Where to write the file `name`; its folder exists."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def previous_artifacts(self) -> list[Path]:
        """Published artifacts of the same stage, the newest first: what of them still holds need not be made again."""
        stage = self.path.name.rsplit("-", 1)[0]
        found = [
            path.parent for path in self.path.parent.glob(f"{stage}-*/{MANIFEST}") if path.parent.suffix == ""
        ]
        return sorted(found, key=lambda path: (path / MANIFEST).stat().st_mtime_ns, reverse=True)

    def info(self, text: str) -> None:
        """One line for the person who watches."""
        self._reporter.info(f"  {text}")

    def track(
        self, label: str, total: float | None, unit: str = "it", start: float = 0
    ) -> AbstractContextManager[Tracker]:
        """Progress of one piece of work: `with out.track("encode", n, "documents") as tracker: ...`."""
        return self._reporter.track(label, total, unit, start)

    def watch(
        self, label: str, total: float, unit: str = "steps", start: float = 0
    ) -> AbstractContextManager[Tracker]:
        """Like `track`, for a training: in a terminal, a dashboard of all that is logged meanwhile."""
        return self._reporter.watch(label, total, unit, start, read_metrics(self.path / METRICS))

    def log(self, **values: Any) -> None:
        """Append a line to `metrics.jsonl`."""
        if self.keeps_log:
            self._reporter.show(self._metrics().log(**values))

    def rewind_log(self, step: int) -> None:
        """Drop lines after `step`, which a resumed stage will write again."""
        if self.keeps_log:
            self._metrics().rewind(step)

    def close_log(self) -> None:
        """Let the trackers write what is left."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def close(self) -> None:
        """Flush what is open, and delete the resume state and files that a killed process left unfinished."""
        self.close_log()
        shutil.rmtree(self.temporary, ignore_errors=True)
        for left in self.path.rglob("*.part"):
            left.unlink()

    def _metrics(self) -> MetricsLog:
        if self._log is None:
            self._log = MetricsLog(self.path / METRICS, self._open_trackers())
        return self._log


def work(part: Path, reporter: Reporter, runtime: Runtime, keeps_log: bool = True) -> StageContext:
    """What the artifact that is being made in `part` (<workspace>/artifacts/<name>.part) is written into."""
    run = Run(part.stem, part.parent.parent / "trackers")
    return StageContext(
        part, reporter, lambda: open_trackers(runtime.trackers, run, reporter.info), keeps_log
    )


@dataclass(frozen=True)
class StageReport:
    """What a builder found: `state` is ready, built, or to build; `why` says what differs."""

    label: str
    artifact: Artifact
    state: Literal["ready", "built", "to build"]
    why: str = ""


def run_inline(
    function: Callable[..., Metrics],
    recipe: Recipe,
    runtime: Runtime,
    out: StageContext,
    inputs: dict[str, Artifact],
) -> Metrics:
    """The plain runner: a call in this process."""
    return function(recipe, runtime, out, **inputs)


class StopAfterStage(Exception):
    """The stage after which a builder was to stop is built."""


@dataclass
class Builder:
    """Runs a pipeline function. With `build=False` it touches nothing and only reports."""

    store: Store
    runtime: Runtime
    reporter: Reporter = field(default_factory=Reporter)
    build: bool = True
    previous: dict[str, Artifact] = field(default_factory=dict)
    """The artifacts of the last complete run, to say what differs from them."""
    until: str = ""
    """The label after which to stop; "" = build everything."""
    runner: Runner = run_inline
    """How a stage function is called."""
    total: int = 0
    """How many stages there will be, for the count in front of each line; 0 = unknown."""
    reports: list[StageReport] = field(default_factory=list)

    def __call__(self, function: Callable[..., Metrics], recipe: Recipe, *inputs: Artifact,
                 label: str = "", **named: Artifact) -> Artifact:  # fmt: skip
        """The artifact that `function` makes of the recipe and the inputs. Raises Reached after the stage `until`."""
        made = self._make(function, recipe, *inputs, label=label, **named)
        if self.until and self.reports[-1].label == self.until:
            raise StopAfterStage
        return made

    def _make(self, function: Callable[..., Metrics], recipe: Recipe, *inputs: Artifact,
              label: str = "", **named: Artifact) -> Artifact:  # fmt: skip
        bound = _bind(function, inputs, named)
        outside = function.stage_outside(recipe) if function.stage_outside else None  # type: ignore[attr-defined]
        name = function.stage_name(recipe)  # type: ignore[attr-defined]
        label = label or name
        prints = {key: value.fingerprint for key, value in bound.items()}
        said = fingerprint_payload(name, function.stage_version, recipe, prints, outside)  # type: ignore[attr-defined]
        artifact = self.store.artifact(name, digest(said))
        problem = verify(artifact.path) if artifact.path.exists() else "not built"
        if problem is None:
            return self._report(label, artifact, "ready")
        why = _difference(said, outside, recipe, self.previous.get(label))
        if not self.build:
            return self._report(label, artifact, "to build", why)
        with explain_disk_errors(label, artifact.path.parent), self.store.lock(artifact):
            if artifact.path.exists():
                problem = verify(artifact.path)  # somebody else may have built it meanwhile
                if problem is None:
                    return self._report(label, artifact, "ready")
                self.reporter.info(f"{artifact.path.name} is damaged ({problem}): building it again")
                self.store.quarantine(artifact)
            self.reporter.info(f"{self._count()} {label}")
            manifest = {"stage": name, "fingerprint": artifact.fingerprint,
                        "version": said["version"], "recipe": _full(recipe), "inputs": prints,
                        "outside": digest(outside), "runtime": self.runtime.model_dump()}  # fmt: skip
            self._run(function, recipe, bound, artifact, manifest)
        return self._report(label, artifact, "built", why)

    def _run(self, function: Callable[..., Metrics], recipe: Recipe, inputs: dict[str, Artifact],
             artifact: Artifact, manifest: dict[str, Any]) -> None:  # fmt: skip
        part = artifact.path.with_name(artifact.path.name + ".part")
        (part / MANIFEST).unlink(missing_ok=True)
        require(self.runtime.trackers)
        out = work(part, self.reporter, self.runtime)
        started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
        try:
            metrics = self.runner(function, recipe, self.runtime, out, inputs)
        finally:
            out.close_log()
        out.close()
        manifest |= {
            "metrics": metrics,
            "environment": environment(),
            "started": started,
            "seconds": round(time.monotonic() - clock, 3),
        }
        self.store.publish(part, artifact, manifest)

    def _report(
        self, label: str, artifact: Artifact, state: Literal["ready", "built", "to build"], why: str = ""
    ) -> Artifact:
        if state == "ready" and self.build:
            self.reporter.info(f"{self._count()} {label}: fresh")
        self.reports.append(StageReport(label, artifact, state, why))
        return artifact

    def _count(self) -> str:
        number = len(self.reports) + 1
        return f"[{number}/{self.total}]" if self.total else f"[{number}]"


def _bind(
    function: Callable[..., Metrics], inputs: tuple[Artifact, ...], named: dict[str, Artifact]
) -> dict[str, Artifact]:
    """Every input under its parameter's name."""
    bound = inspect.signature(function).bind(None, None, None, *inputs, **named).arguments
    flat: dict[str, Artifact] = {}
    for key, value in list(bound.items())[3:]:
        flat |= value if isinstance(value, dict) else {key: value}
    return {key: value for key, value in flat.items() if value is not None}


def _full(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json")


def _difference(said: dict[str, Any], outside: Any, recipe: Recipe, previous: Artifact | None) -> str:
    """In one line: which fields differ from the artifact of the last complete run."""
    manifest = read_manifest(previous.path) if previous else None
    if manifest is None:
        return "never built"
    found = []
    if manifest["version"] != said["version"]:
        found.append(f"version {manifest['version']} -> {said['version']}")
    old, new = dict(flatten(manifest["recipe"])), dict(flatten(_full(recipe)))
    found += [
        f"{key}: {_short(old.get(key, '(absent)'))} -> {_short(new.get(key, '(absent)'))}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, "(absent)") != new.get(key, "(absent)")
    ]
    changed = [key for key, value in said["inputs"].items() if manifest["inputs"].get(key) != value]
    found += [f"input {key} changes" for key in changed]
    if manifest.get("outside") != digest(outside):
        found.append("the source files changed")
    return "; ".join(found) or "missing or damaged"


def _short(value: Any) -> str:
    """A value as Python spells it, or its beginning."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def flatten(value: Any, at: str = "") -> list[tuple[str, Any]]:
    """A nested value as dotted keys, e.g. `optimizer.lr`; lists by index."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return [(at, value)]
    return [pair for key, inner in items for pair in flatten(inner, f"{at}.{key}" if at else str(key))]
