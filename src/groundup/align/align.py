"""The stage of every align step: trains a policy or a reward model with one method.

in:  alignment data, the tokenizer, and the models that the method reads: an initial policy, a reward model
out: a checkpoint folder with a policy or a reward model

A method gives model, batches and loss; the training loop is that of pretraining. The stage has its method's name.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, model_validator

from groundup.align.data.dataset import Dataset
from groundup.align.methods import Method, MethodContext
from groundup.align.methods.sft import Sft
from groundup.core.recipe import Recipe
from groundup.core.registry import Plugin, plugin_name
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, Metrics, StageContext, stage
from groundup.evaluate.alignment_data import AlignmentData, RecordKind
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.loop import train


class AlignStep(Recipe):
    """One align step of a blueprint: name, inputs, and the method's keys beside them."""

    name: str = Field(
        default="align", description="name of the step, used in later steps' inputs and in the run"
    )
    inputs: dict[str, str] = Field(
        default={},
        description="role -> name of the step whose model has this role (start, reward); default: the newest one",
    )
    data: tuple[str, ...] = Field(
        default=(),
        description="names of the [[data]] tables that the step learns from; empty = all with a kind that it reads",
    )
    method: Annotated[Method, Plugin("groundup.align.methods")] = Field(
        default=Sft(), description="alignment method"
    )

    @model_validator(mode="before")
    @classmethod
    def _method_keys_stand_beside(cls, value: Any) -> Any:
        """Accepts `use` and the method's keys beside `name`, or in a table `method`."""
        if not isinstance(value, dict):
            return value
        own = {key: value[key] for key in value if key in cls.model_fields}
        beside = {key: value[key] for key in value if key not in cls.model_fields}
        if beside and isinstance(own.get("method", {}), dict):
            own["method"] = own.get("method", {}) | beside
        elif beside:
            return value
        return own

    def resolved(self, d_model: int) -> "AlignStep":
        """The same step with the optimizer's derived values written out, for a model of this width."""
        optimizer = self.method.optimizer.resolved(d_model)
        return self.model_copy(update={"method": self.method.model_copy(update={"optimizer": optimizer})})


class Align(Recipe):
    """The recipe of the stage: a method, and the tables of alignment data that it learns from."""

    method: Annotated[Method, Plugin("groundup.align.methods")] = Sft()
    data: tuple[str, ...] = ()


@stage(
    version=3,
    kind=lambda recipe: recipe.method.output,
    name=lambda recipe: plugin_name(recipe.method),
    ranks=True,
    headline=lambda recipe: recipe.method.headline,
)
def align(
    recipe: Align,
    runtime: Runtime,
    context: StageContext,
    data: Artifact,
    tokenizer: Artifact,
    models: Mapping[str, Artifact],
) -> Metrics:
    """Train with one method on records of `data`."""
    folders = {role: artifact.path for role, artifact in models.items()}
    records = AlignmentData.load(data.path, recipe.data)
    return train_with(
        recipe.method, MethodContext(runtime, context, Tokenizer.load(tokenizer.path), records, folders)
    )


def train_with(method: Method, context: MethodContext) -> Metrics:
    """Prepare a session, train, measure."""
    session = method.prepare(context)
    spec = session.train_spec()
    result = train(spec)
    speed = {"steps": result.steps, "skipped_steps": result.skipped_steps, "train_seconds": result.seconds}
    throughput = {"tokens_per_second": result.tokens_per_second} if spec.tokens_per_step else {}
    return session.finish() | speed | throughput


def refuse_unusable_data(steps: Sequence[AlignStep], datasets: Sequence[Dataset]) -> None:
    """Raise ValueError for tables with one name, and for a step without a table of a kind that its method reads."""
    names = [dataset.label() for dataset in datasets]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two [[data]] tables are called `{name}`: give each its own name")
    for step in steps:
        unknown = [name for name in step.data if name not in names]
        if unknown:
            known = ", ".join(names) or "none"
            raise ValueError(
                f"align step `{step.name}`: there is no [[data]] called `{unknown[0]}`. Known: {known}"
            )
        needed = step.method.learns_from
        chosen = [dataset for dataset in datasets if not step.data or dataset.label() in step.data]
        if needed and not any(needed & dataset.provides for dataset in chosen):
            raise ValueError(
                f"align step `{step.name}` learns from {' or '.join(sorted(needed))}, and no [[data]] that it reads "
                "provides them. Add [[data]] with " + _how_to_provide(needed)
            )


def _how_to_provide(needed: frozenset[RecordKind]) -> str:
    """The tables to add, as one would write them."""
    if needed & {"conversations", "prompts"}:
        first = "conversations" if "conversations" in needed else "prompts"
        return f'use = "{first}" and paths, or questions made from the documents: [[tasks]] with use = "passages"'
    return 'use = "preferences" and paths'
