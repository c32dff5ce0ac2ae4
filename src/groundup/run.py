"""A blueprint -> a run: the builder set up, the pipeline called, the result recorded and told.

in:  a validated Blueprint and a store
out: runs/<name>.json, runs/<name>/ with links and the resolved blueprint, and a closing word for people
"""

import shutil
import sys
import time
from pathlib import Path

from groundup.core.atomic_io import write_text
from groundup.core.builder import Builder, StageReport, StageRunner, StopAfterStage
from groundup.core.errors import BlueprintError, StoreError
from groundup.core.progress import Reporter
from groundup.core.store import Artifact, Store
from groundup.parallel.stage_runner import run_stage
from groundup.pipeline import Blueprint, pipeline, resolved


def execute(
    plan: Blueprint, store: Store, reporter: Reporter, until: str = "", runner: StageRunner = run_stage
) -> Path:
    """Build whatever isn't fresh, to the end or up to a stage. Returns the path of the book, or of that stage.

    runner: how stages are called; by default in as many ranks as the runtime has.

    Raises BlueprintError if there is no stage `until`.
    """
    started = time.monotonic()
    builder = _builder(plan, store, reporter, build=True)
    builder.until, builder.runner = until, runner
    if until and until not in plan.labels():
        raise BlueprintError(
            f"--until {until}: there is no such stage. This run has: {', '.join(plan.labels())}"
        )
    reporter.info(f"groundup run: {plan.name}, {len(plan.labels())} stages, in {store.root}")
    try:
        made = pipeline(plan, builder)
    except StopAfterStage:
        made = {report.label: report.artifact for report in builder.reports}
        store.record_run(plan.name, made, {"until": until})
        reporter.info(f"\nDone up to {until}: {_near(made[until].path)}")
        return made[until].path
    store.record_run(plan.name, made, {"final": plan.final_policy()})
    write_text(store.runs / plan.name / "blueprint.toml", resolved(plan))
    _tell(plan, made, builder, reporter, time.monotonic() - started)
    return made["book"].path / "book.html"


def inspect_plan(plan: Blueprint, store: Store) -> list[StageReport]:
    """What `execute` would find and do, without doing it."""
    builder = _builder(plan, store, Reporter(quiet=True), build=False)
    pipeline(plan, builder)
    return builder.reports


def _builder(plan: Blueprint, store: Store, reporter: Reporter, build: bool) -> Builder:
    try:
        previous = store.run(plan.name)
    except StoreError:
        previous = {}
    return Builder(store, plan.runtime, reporter, build, previous, total=len(plan.labels()))


def _tell(
    plan: Blueprint, made: dict[str, Artifact], builder: Builder, reporter: Reporter, seconds: float
) -> None:
    built = sum(report.state == "built" for report in builder.reports)
    if built:
        reporter.info(
            f"\nDone: {built} of {len(builder.reports)} stages built in {seconds / 60:.1f} minutes."
        )
    else:
        reporter.info("\nEverything is fresh: nothing to build.")
    book = made["book"].path
    reporter.info(f"  the book   {_near(book / 'book.html')}")
    reporter.info(f"             {_near(book / 'book.pdf')}")
    reporter.info(f"  the model  {_near(made[plan.final_policy()].path)}")
    reporter.info(f"  chat       {_command()} chat {plan.name}")


def _command() -> str:
    """How to call this program from here: it may lie in a virtual environment that isn't activated."""
    called = Path(sys.argv[0])
    return str(called) if called.name == "groundup" and shutil.which("groundup") is None else "groundup"


def _near(path: Path) -> str:
    """A path as one would type it from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
