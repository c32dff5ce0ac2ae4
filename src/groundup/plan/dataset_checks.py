"""Checks of pretraining against the token dataset: is there enough text, and does the plan fit it?

in:  the (resolved) recipe of pretraining, counts from the manifests of tokenizer and tokenize
out: problems
"""

from collections.abc import Iterator
from dataclasses import dataclass

from groundup.model import scaling
from groundup.plan.problem import Problem
from groundup.train.budget import TrainingBudget
from groundup.train.pretrain import Pretrain, pretrain_budget
from groundup.train.stable_checkpoint import stable_steps

LEAST_SHARE = 0.01
"""Of the planned training tokens that the corpus must provide; a plan for more is refused."""
FEW_STEPS = 10
FEW_OCCURRENCES = 10
"""Mean occurrences of a token id below which the vocabulary is too large for the corpus."""


@dataclass(frozen=True)
class DatasetCounts:
    """What the manifests of tokenizer and tokenize say."""

    seq_len: int
    train_tokens: int
    train_rows: int
    validation_rows: int
    vocab_size: int

    def batch_rows(self, batch_tokens: int) -> int:
        """Packed sequences of a step: as many as `batch_tokens` allows and the corpus has."""
        return max(1, min(batch_tokens // self.seq_len, self.train_rows))


def budget_of(recipe: Pretrain, counts: DatasetCounts) -> TrainingBudget:
    """What pretraining reads of the dataset."""
    return pretrain_budget(recipe, counts.train_rows, counts.batch_rows(recipe.batch_tokens), counts.seq_len)


def dataset_problems(recipe: Pretrain, counts: DatasetCounts, derived_tokens: bool) -> Iterator[Problem]:
    """All problems. derived_tokens: the number of training tokens follows from the depth."""
    if counts.validation_rows == 0:
        yield Problem(
            "pretrain",
            "the validation split has no text: add documents, or raise tokenize.validation_share",
            True,
        )
    if counts.train_tokens <= counts.seq_len:
        yield Problem(
            "pretrain",
            f"tokenize.seq_len = {counts.seq_len:,}: the {counts.train_tokens:,} training tokens do not fill one "
            f"packed sequence. Lower it to {max(8, counts.train_tokens // 4):,} or less, or add text",
            True,
        )
        return
    yield from _token_problems(recipe, counts, derived_tokens)
    yield from _step_problems(recipe, counts)
    if counts.train_tokens < FEW_OCCURRENCES * counts.vocab_size:
        yield Problem(
            "pretrain",
            f"tokenizer.vocab_size = {counts.vocab_size:,}: with {counts.train_tokens:,} training tokens an id occurs "
            f"{counts.train_tokens / counts.vocab_size:.1f} times on average. Lower it, or add text",
        )


def vocabulary_problems(requested: int, made: int) -> Iterator[Problem]:
    """A tokenizer that has fewer ids than requested, because the corpus has no more pairs to merge."""
    if made < requested:
        yield Problem(
            "tokenizer",
            f"tokenizer.vocab_size = {requested:,}: the corpus fills only {made:,} ids, which the model has",
        )


def _token_problems(recipe: Pretrain, counts: DatasetCounts, derived_tokens: bool) -> Iterator[Problem]:
    """A token budget that `max_epochs` passes over the corpus can't fill."""
    available = int(recipe.max_epochs * counts.train_rows * counts.seq_len)
    if available >= recipe.tokens:
        return
    share = available / recipe.tokens
    key = f"pretrain.tokens = {recipe.tokens:,}" + (
        f" (from depth = {recipe.depth})" if derived_tokens else ""
    )
    what = (
        f"{key}: max_epochs = {recipe.max_epochs:g} passes over the corpus give {available:,} tokens, "
        f"{share:.2%} of them"
    )
    if share < LEAST_SHARE:
        yield Problem("pretrain", f"{what}. {_remedy(recipe, available, derived_tokens)}", True)
    else:
        yield Problem("pretrain", f"{what}; the training ends there. Add text, or set tokens = {available:_}")


def _remedy(recipe: Pretrain, available: int, derived_tokens: bool) -> str:
    """The largest depth whose tokens the corpus can provide; without one, the number of tokens."""
    depth = next(
        (depth for depth in range(recipe.depth, 0, -1) if _tokens_at(recipe, depth) <= available), None
    )
    if derived_tokens and depth and not recipe.start:
        return f"Add text, or set pretrain.depth = {depth} or less, or pretrain.tokens = {available:_}"
    return f"Add text, or set pretrain.tokens = {available:_} and a smaller model"


def _tokens_at(recipe: Pretrain, depth: int) -> int:
    """Training tokens by rule at a depth, with sizes derived from it."""
    sizes = dict.fromkeys(("d_model", "n_heads", "n_kv_heads", "d_ff"), 0)
    known = type(recipe.architecture).model_fields
    derived = {name: value for name, value in sizes.items() if name in known}
    architecture = recipe.architecture.model_copy(update=derived)
    return scaling.horizon_tokens(architecture.config(depth, vocab_size=64, max_seq_len=64))


def _step_problems(recipe: Pretrain, counts: DatasetCounts) -> Iterator[Problem]:
    """Batches that the corpus or a packed sequence changes, and a training of few steps."""
    wanted = recipe.batch_tokens // counts.seq_len
    budget = budget_of(recipe, counts)
    if wanted > counts.train_rows:
        yield Problem(
            "pretrain",
            f"pretrain.batch_tokens = {recipe.batch_tokens:,} is {wanted:,} packed sequences a step, and the corpus "
            f"fills {counts.train_rows:,}: a step reads all of them. Add text, or lower batch_tokens",
        )
    if wanted == 0:
        yield Problem(
            "pretrain",
            f"pretrain.batch_tokens = {recipe.batch_tokens:,} is less than one packed sequence (tokenize.seq_len = "
            f"{counts.seq_len:,}): a step reads {counts.seq_len:,} tokens",
        )
    if budget.steps < FEW_STEPS:
        yield Problem(
            "pretrain",
            f"pretraining has {budget.steps} steps ({budget.ended_by} ends it): too few to learn from. Lower "
            "pretrain.batch_tokens, raise tokens, or add text",
        )
    last = stable_steps(budget.steps, recipe.decay_fraction)
    if recipe.schedule == "wsd" and not 0 < last < budget.steps:
        yield Problem(
            "pretrain",
            f'pretrain.schedule = "wsd" with decay_fraction = {recipe.decay_fraction:g} has no stable checkpoint in '
            f"{budget.steps} steps",
        )
    if recipe.validate_every > budget.steps and _is_set(recipe, "validate_every"):
        yield Problem(
            "pretrain",
            f"pretrain.validate_every = {recipe.validate_every} is more than its {budget.steps} steps: it is validated "
            "only at the end",
        )


def _is_set(recipe: Pretrain, name: str) -> bool:
    return bool(getattr(recipe, name) != type(recipe).model_fields[name].default)
