"""A blueprint -> a run: the builder set up, the pipeline called, the result recorded and told.

in:  a validated Blueprint and a store
out: runs/<name>.json, runs/<name>/ with links and the resolved blueprint, and a closing word for people
"""

import shutil
import sys
import time
from pathlib import Path

from groundup.core.durable import write_text
from groundup.core.errors import StoreError
from groundup.core.progress import Reporter
from groundup.core.stage import Builder, StageReport
from groundup.core.store import Artifact, Store
from groundup.pipeline import Blueprint, pipeline, resolved


def execute(plan: Blueprint, store: Store, reporter: Reporter) -> Path:
    """Build whatever isn't fresh. Returns the book's path."""
    started = time.monotonic()
    builder = _builder(plan, store, reporter, build=True)
    reporter.say(f"groundup run: {plan.name}, {plan.stage_count()} stages, in {store.root}")
    made = pipeline(plan, builder)
    store.record_run(plan.name, made, {"final": plan.final()})
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
    return Builder(store, plan.site, reporter, build, previous, plan.stage_count())


def _tell(
    plan: Blueprint, made: dict[str, Artifact], builder: Builder, reporter: Reporter, seconds: float
) -> None:
    built = sum(report.state == "built" for report in builder.reports)
    if built:
        reporter.say(f"\nDone: {built} of {len(builder.reports)} stages built in {seconds / 60:.1f} minutes.")
    else:
        reporter.say("\nEverything is fresh: nothing to build.")
    book = made["book"].path
    reporter.say(f"  the book   {_near(book / 'book.html')}")
    reporter.say(f"             {_near(book / 'book.pdf')}")
    reporter.say(f"  the model  {_near(made[plan.final()].path)}")
    reporter.say(f"  chat       {_command()} chat {plan.name}")


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
