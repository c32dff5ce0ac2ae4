"""The whole pipeline in one function. Read this file first.

in:  a Blueprint (what to make) and a builder (which makes it, or only reports what it would make)
out: every artifact of the run by its label, in the order of the pipeline
"""

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from groundup.align.align import Align, AlignStep, align, refuse_unusable_data
from groundup.align.data.data import Data, data
from groundup.align.data.dataset import Dataset
from groundup.align.data.datasets.generated import Generated
from groundup.align.data.datasets.grounded import Grounded
from groundup.book.book import Book, book
from groundup.core.blueprint import to_toml
from groundup.core.builder import PipelineBuilder
from groundup.core.recipe import Recipe
from groundup.core.registry import Plugin
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, ArtifactKind
from groundup.core.status import PlannedStage, StageCollector
from groundup.evaluate.evaluate import Evaluate, evaluate
from groundup.evaluate.examples import tasks_by_name
from groundup.evaluate.tasks import REQUIRED_METRIC, Task
from groundup.text.curate.classifier import Classifier, classifier
from groundup.text.curate.curate import Curate, curate
from groundup.text.curate.types import NeedsClassifier
from groundup.text.ingest.ingest import Ingest, ingest, labelled
from groundup.tokens.tokenize import Tokenize, tokenize
from groundup.tokens.train_tokenizer import TokenizerRecipe, tokenizer
from groundup.train.pretrain import Pretrain, pretrain


class Blueprint(Recipe):
    """A blueprint: one model from raw text to aligned assistant."""

    name: str = Field(default="model", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name of the run")
    ingest: Ingest = Ingest()
    classifiers: tuple[Classifier, ...] = Field(
        default=(), description="fastText classifiers trained before curation, for its model_filter steps"
    )
    curate: Curate = Curate()
    tokenizer: TokenizerRecipe = TokenizerRecipe()
    tokenize: Tokenize = Tokenize()
    pretrain: Pretrain = Pretrain()
    tasks: tuple[Annotated[Task, Plugin("groundup.evaluate.tasks")], ...] = Field(
        default=(), description="questions that the model is trained and evaluated on"
    )
    data: tuple[Annotated[Dataset, Plugin("groundup.align.data.datasets")], ...] = Field(
        default=(), description="what the align steps learn from; empty = questions made by the tasks"
    )
    align: tuple[AlignStep, ...] = Field(
        default=(), description="align steps, in the order in which they run"
    )
    evaluate: Evaluate = Evaluate()
    book: Book = Book()
    runtime: Runtime = Runtime()

    @field_validator("tasks")
    @classmethod
    def _tasks_give_what_evaluation_needs(cls, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
        for name, task in tasks_by_name(tasks).items():
            if REQUIRED_METRIC not in task.metrics:
                raise ValueError(
                    f"task `{name}` does not give the metric `{REQUIRED_METRIC}`, which evaluation needs. "
                    f"Its metrics: {', '.join(task.metrics) or 'none'}"
                )
        return tasks

    @model_validator(mode="after")
    def _steps_fit_together(self) -> Self:
        if not self.ingest.sources:
            raise ValueError(
                'the blueprint has no sources. Add [[ingest.sources]] with use = "files", or --data'
            )
        refuse_unusable_data(self.align, self.datasets())
        names = [item.name for item in self.classifiers]
        for step in self.curate.steps:
            if isinstance(step, NeedsClassifier) and step.classifier not in names:
                raise ValueError(
                    f"a step of curate needs the classifier `{step.classifier}`, and the blueprint has: "
                    f'{", ".join(names) or "none"}. Add [[classifiers]] with name = "{step.classifier}"'
                )
        _refuse_repeated([step.name for step in self.align])
        _refuse_repeated(self.labels())
        return self

    def align_inputs(self) -> dict[str, dict[str, str]]:
        """For each align step, the label of the artifact that it reads in each role.

        A role that the step doesn't name is filled by the newest artifact of the role's kind before the step.
        Raises ValueError for a label that doesn't exist or has another kind.
        """
        kinds: dict[str, ArtifactKind] = {"pretrain": "policy"}
        inputs = {}
        for step in self.align:
            roles = step.method.inputs
            unknown = [role for role in step.inputs if role not in roles]
            if unknown:
                raise ValueError(
                    f"align step `{step.name}` doesn't read `{unknown[0]}`, only {', '.join(roles)}"
                )
            inputs[step.name] = {role: _input_label(step, role, kind, kinds) for role, kind in roles.items()}
            kinds[step.name] = step.method.output
        return inputs

    def datasets(self) -> tuple[Dataset, ...]:
        """The tables of alignment data: by default the questions that the tasks make of the documents."""
        tables = self.data or ((Generated(),) if self.tasks else ())
        return tuple(
            table.model_copy(update={"tasks": self.tasks})
            if isinstance(table, Generated | Grounded) and not table.tasks
            else table
            for table in tables
        )

    def final_policy(self) -> str:
        """The label of the last policy: the model that is evaluated and chatted with."""
        policies = [step.name for step in self.align if step.method.output == "policy"]
        return policies[-1] if policies else "pretrain"

    def labels(self) -> list[str]:
        """The labels of a run's artifacts, in the order of the pipeline."""
        return [stage.label for stage in planned_stages(self)]

    def resolved(self) -> "Blueprint":
        """The same blueprint with every value that follows from others written out; it has the same fingerprints."""
        pretrain = self.pretrain.resolved()
        width = pretrain.shape().d_model
        return self.model_copy(
            update={"pretrain": pretrain, "align": tuple(step.resolved(width) for step in self.align)}
        )

    def weighed(self) -> Curate:
        """Curation's recipe with the weights and epoch caps of the sources."""
        sources = dict(labelled(self.ingest))
        weights = {label: source.weight for label, source in sources.items() if source.weight is not None}
        caps = {label: source.max_epochs for label, source in sources.items() if source.max_epochs != 1}
        mix = self.curate.mix
        update = {"weights": mix.weights | weights, "caps": mix.caps | caps}
        return self.curate.model_copy(update={"mix": mix.model_copy(update=update)})


def pipeline(plan: Blueprint, build: PipelineBuilder) -> dict[str, Artifact]:
    """Raw text -> documents -> tokens -> weights -> better-behaved weights -> scores -> a book."""
    plan = plan.resolved()
    raw = build(ingest, plan.ingest)
    classifiers = {
        item.name: build(classifier.labelled(f"classifier-{item.name}"), item) for item in plan.classifiers
    }
    documents = build(curate, plan.weighed(), raw, classifiers)
    vocabulary = build(tokenizer, plan.tokenizer, documents)
    tokens = build(tokenize, plan.tokenize, documents, vocabulary)
    if plan.align:
        build(data, Data(datasets=plan.datasets(), decontaminate=plan.curate.decontaminate), documents)
    base = build(pretrain, plan.pretrain, tokens, vocabulary)
    for step in plan.align:
        models = {role: build.artifacts[label] for role, label in plan.align_inputs()[step.name].items()}
        recipe = Align(method=step.method, data=step.data)
        build(align.labelled(step.name), recipe, build.artifacts["data"], vocabulary, models)
    grounded = [table.passages for table in plan.datasets() if isinstance(table, Grounded)]
    scored = plan.evaluate.model_copy(update={"tasks": plan.tasks, "passages": max(grounded, default=0)})
    build(evaluate, scored, tokens, documents, base, build.artifacts[plan.final_policy()])
    build(book, printed(plan), dict(build.artifacts))
    return build.artifacts


def planned_stages(plan: Blueprint) -> list[PlannedStage]:
    """The stages of a run in their order, with recipes and inputs, without building anything."""
    collector = StageCollector()
    pipeline(plan, collector)
    return collector.stages


def printed(plan: Blueprint) -> Book:
    """The book's recipe: it prints the resolved blueprint, without the runtime, which is not part of the model."""
    return plan.book.model_copy(update={"blueprint": resolved(plan), "name": plan.name})


def resolved(plan: Blueprint) -> str:
    """The blueprint as TOML with every default and derived value written out, without the runtime."""
    return to_toml(plan.resolved(), leave_out=frozenset({"runtime"}))


def _refuse_repeated(labels: list[str]) -> None:
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(
                f"two stages are called `{label}`: give each align step and classifier its own name"
            )


def _input_label(step: AlignStep, role: str, kind: ArtifactKind, kinds: dict[str, ArtifactKind]) -> str:
    """The label of the artifact that `step` reads as `role`. `kinds`: what the stages before it make."""
    candidates = [label for label, made in kinds.items() if made == kind]
    label, noun = step.inputs.get(role), kind.replace("_", " ")
    if label is None:
        if not candidates:
            raise ValueError(
                f"align step `{step.name}` needs a {noun} for `{role}`, and no step before it makes one. "
                f"Add an [[align]] step above it that makes a {noun}"
            )
        return candidates[-1]
    if label not in candidates:
        raise ValueError(
            f"align step `{step.name}`: inputs.{role} = `{label}` is no {noun} made before it. "
            f"Available: {', '.join(candidates) or 'none'}"
        )
    return label
