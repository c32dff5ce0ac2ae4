"""The status of a blueprint's stages, from the kept plan where there is one.

in:  a blueprint as a table, its overrides, the store
out: a report per stage

Only a blueprint that was not seen before is validated, which imports every stage.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from groundup.core.kept_plan import keep_plan, load_plan, plan_key
from groundup.core.status import PlannedStage, StageReport, stage_reports
from groundup.core.store import Store


def pipeline_status(
    store: Store, table: dict[str, Any], overrides: list[str], origin: str, folder: Path
) -> list[StageReport]:
    """A report per stage, in the order of the pipeline. `folder`: where the modules of local plugins are.

    Raises BlueprintError for a blueprint that isn't valid.
    """
    key = plan_key(table, overrides)
    name, stages = load_plan(store, key) or _plan(store, key, table, overrides, origin, folder)
    return stage_reports(stages, store, store.previous_manifests(name), store.digests())


def _plan(
    store: Store, key: str, table: dict[str, Any], overrides: list[str], origin: str, folder: Path
) -> tuple[str, list[PlannedStage]]:
    """Validate the blueprint and keep its plan; returns the run's name and its stages."""
    from groundup.core.blueprint import load
    from groundup.pipeline import Blueprint, planned_stages

    plan = load(Blueprint, table, overrides, origin, folder)
    digests = store.digests()
    stages = [
        replace(stage, external=stage.external_digest(digests) is not None) for stage in planned_stages(plan)
    ]
    digests.flush()
    if not plan.pretrain.start:  # a start checkpoint brings the model's shape
        keep_plan(store, key, plan.name, plan, stages)
    return plan.name, stages
