"""A run: builds every artifact of a blueprint and records the result.

in:  a validated Blueprint and a store
out: runs/<name>.json, runs/<name>/ with links and the resolved blueprint, and a summary on stderr
"""

import os
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from groundup.core.atomic_io import write_text
from groundup.core.builder import ATTEMPTS, Builder, StageRunner, StopAfterStage
from groundup.core.errors import BlueprintError, DamagedInputError
from groundup.core.progress import Reporter
from groundup.core.registry import local_sources
from groundup.core.store import Artifact, Store
from groundup.feasibility import FeasibilityCheck
from groundup.parallel.external_launch import ExternalLaunch, detect_launch
from groundup.parallel.stage_runner import ranks_of, run_stage
from groundup.pipeline import Blueprint, pipeline, resolved


def execute_on_ranks(plan: Blueprint, store: Store, reporter: Reporter, until: str = "") -> Path | None:
    """`execute`, here or in the ranks of a cluster that started this process; None on all ranks but the first."""
    place = detect_launch(os.environ)
    if place is None:
        return execute(plan, store, reporter, until)
    with ExternalLaunch(place, plan.runtime.rank_timeout) as cluster:
        if not cluster.is_rank0:
            cluster.follow()
            return None
        return execute(plan, store, reporter, until, partial(run_stage, cluster=cluster), place.ranks)


def execute(
    plan: Blueprint,
    store: Store,
    reporter: Reporter,
    until: str = "",
    runner: StageRunner = run_stage,
    ranks: int = 0,
) -> Path:
    """Build every stage that isn't up to date, to the end or up to a stage. Returns the path of the book or that stage.

    runner: how stages are called; by default in as many ranks as the runtime has. ranks: of a cluster; 0 = those.

    Raises BlueprintError if there is no stage `until`.
    """
    if until and until not in plan.labels():
        raise BlueprintError(
            f"--until {until}: there is no such stage. This run has: {', '.join(plan.labels())}"
        )
    use_temporary_folder(store.root / "temporary", reporter)
    reporter.info(f"groundup run: {plan.name}, {len(plan.labels())} stages, in {store.root}")
    with store.in_use():
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return _execute(plan, store, reporter, until, runner, ranks or ranks_of(plan.runtime))
            except DamagedInputError as error:
                if attempt == ATTEMPTS:
                    raise
                reporter.info(f"{error}: starting again")
    raise AssertionError("unreachable")


def use_temporary_folder(folder: Path, reporter: Reporter) -> None:
    """Use `folder` for temporary files, here and in all ranks and workers, where the system has no folder for them.

    Python would take the current folder then, or fail.
    """
    try:
        if "TMPDIR" in os.environ or tempfile.gettempdir() != str(Path.cwd()):
            return
    except FileNotFoundError:
        tempfile.tempdir = None
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    reporter.info(f"no temporary folder of the system can be written: temporary files go to {folder}")


def _execute(
    plan: Blueprint, store: Store, reporter: Reporter, until: str, runner: StageRunner, ranks: int
) -> Path:
    started = time.monotonic()
    previous, total = store.previous_manifests(plan.name), len(plan.labels())
    feasibility = FeasibilityCheck(plan, store, reporter, until, ranks)
    builder = Builder(
        store, plan.runtime, reporter, previous, until, runner, total, plan.name, feasibility.before
    )
    try:
        artifacts = pipeline(plan, builder)
    except StopAfterStage:
        artifacts = builder.artifacts
        store.record_partial_run(plan.name, artifacts, until)
        reporter.info(f"\nDone up to {until}: {_relative(artifacts[until].path)}")
        return artifacts[until].path
    store.record_run(plan.name, artifacts, {"final": plan.final_policy()})
    _save_blueprint(plan, store.runs / plan.name)
    _report(plan, artifacts, builder, reporter, time.monotonic() - started)
    return artifacts["book"].path / "book.html"


def _save_blueprint(plan: Blueprint, folder: Path) -> None:
    """Write the resolved blueprint, and next to it the local plugins that it names."""
    write_text(folder / "blueprint.toml", resolved(plan))
    for source in local_sources(plan):
        if source.parent != folder.resolve():
            write_text(folder / source.name, source.read_text(encoding="utf-8"))


def _report(
    plan: Blueprint, artifacts: dict[str, Artifact], builder: Builder, reporter: Reporter, seconds: float
) -> None:
    built = sum(report.state == "built" for report in builder.reports)
    if built:
        reporter.info(
            f"\nDone: {built} of {len(builder.reports)} stages built in {seconds / 60:.1f} minutes."
        )
    else:
        reporter.info("\nEverything is up to date: nothing to build.")
    book = artifacts["book"].path
    reporter.info(f"  the book   {_relative(book / 'book.html')}")
    reporter.info(f"             {_relative(book / 'book.pdf')}")
    reporter.info(f"  the model  {_relative(artifacts[plan.final_policy()].path)}")
    reporter.info(f"  chat       {_command()} chat {plan.name}")


def _command() -> str:
    """The command that calls this program: its path in a virtual environment that isn't activated."""
    called = Path(sys.argv[0])
    return str(called) if called.name == "groundup" and shutil.which("groundup") is None else "groundup"


def _relative(path: Path) -> str:
    """A path relative to the current folder, where it is inside."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
