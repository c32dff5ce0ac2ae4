"""Options that several commands have, and the objects that they name.

in:  values of options
out: a validated blueprint, a store, a checkpoint
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from groundup.core.store import ChosenModel, Store
    from groundup.pipeline import Blueprint

BlueprintFile = Annotated[
    Path | None, Parameter(help="TOML file that describes the model (default: the preset `stdlib`)")
]
RunName = Annotated[str | None, Parameter(help="name of the run (default: the blueprint's)")]
Workspace = Annotated[
    Path, Parameter(name="--workspace", env_var="GROUNDUP_WORKSPACE", help="folder of artifacts and runs")
]
Overrides = Annotated[
    list[str],
    Parameter(
        name="--set", help="override a key of the blueprint: section.key=value (repeatable)", negative=()
    ),
]
Data = Annotated[
    list[str],
    Parameter(
        name="--data",
        help="your own folder or files, in place of the blueprint's sources (repeatable)",
        negative=(),
    ),
]
AsJson = Annotated[bool, Parameter(name="--json", help="print JSON instead of a table", negative=())]
Device = Annotated[Literal["auto", "cpu", "cuda"], Parameter(help="device to compute on")]
PolicyStage = Annotated[
    str | None,
    Parameter(help="of a run: the stage whose model is meant, e.g. pretrain (default: the last policy)"),
]
HERE = Path("workspace")


def load_blueprint(
    blueprint: Path | None, data: list[str], overrides: list[str], name: str | None, preset: str = "stdlib"
) -> "Blueprint":
    """The validated blueprint that the options describe."""
    from groundup.core.blueprint import load
    from groundup.pipeline import Blueprint
    from groundup.presets import blueprint_table

    table, origin = blueprint_table(blueprint, data, name, preset)
    return load(Blueprint, table, overrides, origin, plugin_folder(blueprint))


def plugin_folder(blueprint: Path | None) -> Path:
    """Where the modules of local plugins are: next to the blueprint, without one in the current folder."""
    return blueprint.parent if blueprint else Path.cwd()


def choose_model(model: str | None, stage: str | None, workspace: Path) -> "ChosenModel":
    """The checkpoint that `model` names: a folder, or of a run the last policy or that of `stage`."""
    from groundup.core.store import ChosenModel
    from groundup.show import newest_run, pick_policy

    if model is not None and (Path(model) / "config.json").exists():
        return ChosenModel(Path(model), model)
    store = open_store(workspace)
    name = model or newest_run(store)
    stages = store.run(name)
    policy, scores = pick_policy(stages, stage, name), stages.get("evaluate")
    label = next(label for label, artifact in stages.items() if artifact == policy)
    samples = None if scores is None else scores.path / "samples.json"
    per_prompt = int(stages["data"].metrics().get("passages_per_prompt", 0)) if "data" in stages else 0
    if not per_prompt or label == "pretrain":
        return ChosenModel(policy.path, f"{name} ({label})", samples)
    return ChosenModel(
        policy.path, f"{name} ({label})", samples, stages["data"].path / "passages.parquet", per_prompt
    )


def open_store(workspace: Path) -> "Store":
    """The store of a workspace."""
    from groundup.core.store import Store

    return Store(workspace.absolute())
