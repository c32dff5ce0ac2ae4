"""The status of a blueprint's stages, from the kept plan where there is one, and the problems that are known.

in:  a blueprint as a table, its overrides, the store
out: a report per stage; problems

Only a blueprint that was not seen before is validated, which imports every stage.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from groundup.core.kept_plan import KeptPlan, keep_plan, load_plan, plan_key
from groundup.core.status import StageReport, stage_reports
from groundup.core.store import Store
from groundup.plan.problem import KeptProblems, Problem, keep_problems, load_problems


@dataclass(frozen=True)
class PipelineStatus:
    """A report per stage, in the order of the pipeline, and the problems that are known so far."""

    reports: list[StageReport]
    problems: list[Problem]


def pipeline_status(
    store: Store, table: dict[str, Any], overrides: list[str], origin: str, folder: Path
) -> PipelineStatus:
    """The status of a blueprint. `folder`: where the modules of local plugins are.

    Raises BlueprintError for a blueprint that isn't valid.
    """
    key = plan_key(table, overrides)
    plan = load_plan(store, key) or _plan(store, key, table, overrides, origin, folder)
    reports = stage_reports(plan.stages, store, store.previous_manifests(plan.name), store.digests())
    contents = {
        report.label: report.artifact.digest()
        for report in reports
        if report.artifact is not None and report.state == "up to date"
    }
    kept = load_problems(store, plan.digest)
    return PipelineStatus(reports, kept.problems if kept is not None and kept.still_hold(contents) else [])


def _plan(
    store: Store, key: str, table: dict[str, Any], overrides: list[str], origin: str, folder: Path
) -> KeptPlan:
    """Validate the blueprint; keep its plan and its problems."""
    from groundup.core.blueprint import load
    from groundup.feasibility import blueprint_problems, plan_digest
    from groundup.pipeline import Blueprint, planned_stages

    blueprint = load(Blueprint, table, overrides, origin, folder)
    digests = store.digests()
    stages = [
        replace(stage, external=stage.external_digest(digests) is not None)
        for stage in planned_stages(blueprint)
    ]
    digests.flush()
    plan = KeptPlan(blueprint.name, stages, plan_digest(blueprint))
    if load_problems(store, plan.digest) is None:
        ranks = blueprint.runtime.ranks
        keep_problems(store, plan.digest, KeptProblems({}, ranks, blueprint_problems(blueprint, ranks)))
    if not blueprint.pretrain.start:  # a start checkpoint brings the model's shape
        keep_plan(store, key, blueprint, plan)
    return plan
