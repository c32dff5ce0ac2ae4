"""The stage of every align step: trains a policy or a reward model with one method.

in:  documents (questions and answers are made from them), the tokenizer, and what the method reads: a start
     policy, a reward model
out: a checkpoint folder with a policy or a reward model

A method gives model, batches and loss; the training loop is that of pretraining. The stage has its method's name.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from groundup.align.methods import Method, MethodContext
from groundup.align.methods.sft import Sft
from groundup.core.errors import DataError
from groundup.core.recipe import Recipe
from groundup.core.registry import Plugin, plugin_name
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, Metrics, StageContext, stage
from groundup.evaluate.examples import collect, split
from groundup.evaluate.tasks import Task
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
    """The recipe of the stage: a method, and the tasks whose examples it uses."""

    method: Annotated[Method, Plugin("groundup.align.methods")] = Sft()
    tasks: tuple[Annotated[Task, Plugin("groundup.evaluate.tasks")], ...] = ()


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
    documents: Artifact,
    tokenizer: Artifact,
    models: Mapping[str, Artifact],
) -> Metrics:
    """Train with one method on examples made from `documents`."""
    method = recipe.method
    examples = collect(recipe.tasks, documents.path)
    train_examples, held_out = split(examples)
    if not train_examples or not held_out:
        raise DataError(
            f"{plugin_name(recipe.method)}: {len(examples)} questions could be made from the documents, "
            f"{len(held_out)} of them held out; training and evaluation need at least one each. "
            "Add text, or a task with [[tasks]]"
        )
    loaded_tokenizer = Tokenizer.load(tokenizer.path)
    folders = {role: artifact.path for role, artifact in models.items()}
    return train_with(
        method, MethodContext(runtime, context, loaded_tokenizer, train_examples, held_out, folders)
    )


def train_with(method: Method, context: MethodContext) -> Metrics:
    """Prepare a session, train, measure."""
    session = method.prepare(context)
    spec = session.train_spec()
    result = train(spec)
    speed = {"steps": result.steps, "skipped_steps": result.skipped_steps, "train_seconds": result.seconds}
    throughput = {"tokens_per_second": result.tokens_per_second} if spec.tokens_per_step else {}
    return session.finish() | speed | throughput
