"""Plans of pretraining that the dataset can't carry: refused or warned about with key, value and remedy."""

from dataclasses import replace
from typing import Any

import pytest

from groundup.model import scaling
from groundup.plan.dataset_checks import DatasetCounts, dataset_problems, vocabulary_problems
from groundup.train.pretrain import Pretrain

COUNTS = DatasetCounts(
    seq_len=512, train_tokens=3_000_000, train_rows=5_900, validation_rows=300, vocab_size=4096
)


def problems(counts: DatasetCounts = COUNTS, derived: bool = False, **keys: Any) -> list[tuple[bool, str]]:
    recipe = Pretrain(**{"tokens": 1_000_000, "batch_tokens": 8192} | keys).resolved()
    return [(item.impossible, item.text) for item in dataset_problems(recipe, counts, derived)]


def test_a_plan_that_fits_has_no_problem() -> None:
    assert problems() == []


def test_140_billion_tokens_on_three_million_are_refused_with_the_nearest_that_work() -> None:
    [(impossible, text)] = problems(tokens=140_000_000_000)
    assert impossible
    assert (
        "pretrain.tokens = 140,000,000,000: max_epochs = 8 passes over the corpus give 24,166,400 tokens"
        in text
    )
    assert "set pretrain.tokens = 24_166_400" in text


def test_tokens_that_follow_from_the_depth_name_the_largest_depth_that_works() -> None:
    [(impossible, text), *_] = problems(tokens=0, depth=40, derived=True)
    assert impossible
    assert "(from depth = 40)" in text
    depth = int(text.split("pretrain.depth = ")[1].split(" ")[0])
    available = 24_166_400

    def tokens(layers: int) -> int:
        return scaling.horizon_tokens(Pretrain(depth=layers).architecture.config(layers, 64, 64))

    assert tokens(depth) <= available < tokens(depth + 1)


def test_a_corpus_that_shortens_the_training_is_a_warning() -> None:
    [(impossible, text)] = problems(tokens=100_000_000)
    assert not impossible
    assert "24.17% of them; the training ends there" in text


def test_a_corpus_of_less_than_one_packed_sequence_is_refused() -> None:
    [(impossible, text)] = problems(replace(COUNTS, train_tokens=400, train_rows=1))
    assert impossible
    assert (
        "tokenize.seq_len = 512: the 400 training tokens do not fill one packed sequence. Lower it to 100"
        in text
    )


def test_a_validation_split_of_nothing_is_refused() -> None:
    assert (
        True,
        "the validation split has no text: add documents, or raise tokenize.validation_share",
    ) in problems(replace(COUNTS, validation_rows=0))


@pytest.mark.parametrize(
    ("counts", "keys", "words"),
    [
        (
            {"train_rows": 10, "train_tokens": 50_000},
            {"tokens": 40_000},
            "batch_tokens = 8,192 is 16 packed sequences",
        ),
        (
            {},
            {"batch_tokens": 100},
            "batch_tokens = 100 is less than one packed sequence (tokenize.seq_len = 512)",
        ),
        ({}, {"tokens": 40_000}, "pretraining has 4 steps (tokens ends it): too few"),
        ({}, {"validate_every": 500}, "validate_every = 500 is more than its 122 steps"),
        (
            {"vocab_size": 400_000},
            {},
            "vocab_size = 400,000: with 3,000,000 training tokens an id occurs 7.5 times",
        ),
        (
            {},
            {"schedule": "wsd", "decay_fraction": 1.0, "warmup_fraction": 0.0},
            "has no stable checkpoint in 122 steps",
        ),
    ],
)
def test_doubtful_plans_are_warned_about(counts: dict[str, int], keys: dict[str, Any], words: str) -> None:
    found = problems(replace(COUNTS, **counts), **keys)
    assert [impossible for impossible, text in found if words in text] == [False]


def test_a_vocabulary_that_the_corpus_cannot_fill_is_said() -> None:
    [problem] = vocabulary_problems(65_536, 1_234)
    assert (
        problem.text == "tokenizer.vocab_size = 65,536: the corpus fills only 1,234 ids, which the model has"
    )
    assert list(vocabulary_problems(512, 512)) == []
