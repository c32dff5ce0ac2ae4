"""The whole river in one function. Read this file first.

in:  a Blueprint (what to make) and a Builder (which makes it, or only says what it would make)
out: every artifact of the run by its label, in the order of the river
"""

from typing import Annotated, Self

from pydantic import Field, model_validator

from groundup.align.align import Align, AlignStep, align
from groundup.book.book import Book, book
from groundup.core.blueprint import to_toml
from groundup.core.recipe import Recipe
from groundup.core.registry import Plugin
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, Builder
from groundup.evaluate.evaluate import Evaluate, evaluate
from groundup.evaluate.tasks import Task
from groundup.text.curate.classifier import Classifier, classifier
from groundup.text.curate.curate import Curate, curate
from groundup.text.curate.types import Classified
from groundup.text.ingest.ingest import Ingest, ingest, labelled
from groundup.tokens.tokenize import Tokenize, tokenize
from groundup.tokens.train_tokenizer import TokenizerRecipe, tokenizer
from groundup.train.pretrain import Pretrain, pretrain

RESERVED = ("recipe", "runtime", "out", "raw", "label")
"""What curation calls its other inputs."""
STAGES = ("ingest", "curate", "tokenizer", "tokenize", "pretrain", "evaluate", "book")


class Blueprint(Recipe):
    """One model from raw text to aligned assistant."""

    name: str = Field(default="model", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name of the run")
    ingest: Ingest = Ingest()
    classifiers: tuple[Classifier, ...] = Field(
        default=(), description="trained before curation, used by its steps"
    )
    curate: Curate = Curate()
    tokenizer: TokenizerRecipe = TokenizerRecipe()
    tokenize: Tokenize = Tokenize()
    pretrain: Pretrain = Pretrain()
    tasks: tuple[Annotated[Task, Plugin("groundup.evaluate.tasks")], ...] = Field(
        default=(), description="what the model is taught to answer and measured on"
    )
    align: tuple[AlignStep, ...] = ()
    evaluate: Evaluate = Evaluate()
    book: Book = Book()
    runtime: Runtime = Runtime()

    @model_validator(mode="after")
    def _steps_fit_together(self) -> Self:
        if not self.ingest.sources:
            raise ValueError('there is nothing to read. Add [[ingest.sources]] with use = "files", or --data')
        if self.align and not self.tasks:
            raise ValueError('align steps need something to teach. Add [[tasks]] with use = "passages"')
        names = [item.name for item in self.classifiers]
        for name in names:
            if names.count(name) > 1 or name in RESERVED:
                raise ValueError(
                    f"a classifier can't be called `{name}`: that name is taken. Give it another one"
                )
        for step in self.curate.steps:
            if isinstance(step, Classified) and step.classifier not in names:
                raise ValueError(
                    f"a step of curate wants the classifier `{step.classifier}`, and there is: "
                    f'{", ".join(names) or "none"}. Add [[classifiers]] with name = "{step.classifier}"'
                )
        self.reads()
        return self

    def reads(self) -> dict[str, dict[str, str]]:
        """For each align step, which label it reads for each of its needs.

        What a step doesn't say is the newest fitting artifact before it: for `start` the newest policy,
        for `reward` the newest reward model. Raises ValueError for a name that isn't there or doesn't fit.
        """
        kinds, found = {"pretrain": "policy"}, {}
        for step in self.align:
            if step.name in kinds or step.name in STAGES:
                raise ValueError(
                    f"two steps are called `{step.name}`: give each align step a name of its own"
                )
            unknown = [role for role in step.inputs if role not in step.method.inputs]
            if unknown:
                raise ValueError(f"align step `{step.name}` doesn't read `{unknown[0]}`, "
                                 f"only {', '.join(step.method.inputs)}")  # fmt: skip
            found[step.name] = {
                role: _read(step.name, role, step.inputs.get(role), kinds) for role in step.method.inputs
            }
            kinds[step.name] = step.method.output
        return found

    def final(self) -> str:
        """The label of the model to chat with: the last policy."""
        policies = [step.name for step in self.align if step.method.output == "policy"]
        return policies[-1] if policies else "pretrain"

    def labels(self) -> list[str]:
        """The labels of a run's artifacts, in the order of the river."""
        trained = [classifier_label(classifier) for classifier in self.classifiers]
        at = STAGES.index("evaluate")
        return [STAGES[0], *trained, *STAGES[1:at], *(step.name for step in self.align), *STAGES[at:]]

    def weighed(self) -> Curate:
        """Curation's recipe with the weights and epoch caps that stand with the sources."""
        sources = dict(labelled(self.ingest))
        weights = {label: source.weight for label, source in sources.items() if source.weight is not None}
        caps = {label: source.max_epochs for label, source in sources.items() if source.max_epochs != 1}
        mix = self.curate.mix
        told = {"weights": mix.weights | weights, "caps": mix.caps | caps}
        return self.curate.model_copy(update={"mix": mix.model_copy(update=told)})


def pipeline(plan: Blueprint, build: Builder) -> dict[str, Artifact]:
    """Raw text -> documents -> tokens -> weights -> better-behaved weights -> figures -> a book."""
    raw = build(ingest, plan.ingest)
    judges = {item.name: build(classifier, item, label=classifier_label(item)) for item in plan.classifiers}
    documents = build(curate, plan.weighed(), raw, label="curate", **judges)
    vocabulary = build(tokenizer, plan.tokenizer, documents)
    rows = build(tokenize, plan.tokenize, documents, vocabulary)
    made = {"pretrain": build(pretrain, plan.pretrain, rows, vocabulary)}
    for step in plan.align:
        reads = {role: made[label] for role, label in plan.reads()[step.name].items()}
        recipe = Align(method=step.method, tasks=plan.tasks)
        made[step.name] = build(align, recipe, documents, vocabulary, label=step.name, **reads)
    scores = build(
        evaluate,
        plan.evaluate.model_copy(update={"tasks": plan.tasks}),
        rows, documents, made["pretrain"], made[plan.final()],
    )  # fmt: skip
    river = {"ingest": raw} | {classifier_label(item): judges[item.name] for item in plan.classifiers}
    river |= {"curate": documents, "tokenizer": vocabulary, "tokenize": rows}
    river |= made | {"evaluate": scores}
    return river | {"book": build(book, printed(plan), label="book", **river)}


def classifier_label(recipe: Classifier) -> str:
    """What a classifier is called in a run."""
    return f"classifier-{recipe.name}"


def printed(plan: Blueprint) -> Book:
    """The book's recipe: it prints the resolved blueprint, less the runtime, which is no part of the model."""
    return plan.book.model_copy(update={"blueprint": resolved(plan), "name": plan.name})


def resolved(plan: Blueprint) -> str:
    """The blueprint as TOML with every default and derived value written out, less the runtime."""
    derived = plan.model_copy(update={"pretrain": plan.pretrain.resolved()})
    return to_toml(derived, leave_out=frozenset({"runtime"}))


def _read(step: str, role: str, said: str | None, kinds: dict[str, str]) -> str:
    wanted = "reward" if role == "reward" else "policy"
    fitting = [label for label, kind in kinds.items() if kind == wanted]
    if said is None:
        if not fitting:
            raise ValueError(
                f"align step `{step}` needs a {wanted} model for `{role}`, and no step before it makes one. "
                f'Add [[align]] with use = "{wanted}" above it'
            )
        return fitting[-1]
    if said not in fitting:
        raise ValueError(
            f"align step `{step}`: inputs.{role} = `{said}` is no {wanted} model made before it. "
            f"There is: {', '.join(fitting) or 'none'}"
        )
    return said
