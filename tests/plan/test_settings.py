"""Keys that another key switches off are said, and only where they were set."""

from typing import Any

import pytest

from groundup import presets
from groundup.core.blueprint import load
from groundup.core.errors import BlueprintError
from groundup.pipeline import Blueprint
from groundup.plan.settings import unused_settings


def sentences(*overrides: str) -> list[str]:
    table: dict[str, Any] = presets.table("stdlib")
    return list(unused_settings(load(Blueprint, table, list(overrides), "test")))


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_no_preset_has_a_setting_without_effect(preset: str) -> None:
    assert list(unused_settings(load(Blueprint, presets.table(preset), [], preset))) == []


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["pretrain.decay_fraction=0.3"], 'pretrain.decay_fraction = 0.3 has no effect: schedule = "linear"'),
        (['pretrain.schedule="constant"', "pretrain.min_lr_ratio=0.1"], "pretrain.min_lr_ratio = 0.1"),
        (
            ["pretrain.architecture.tie_embeddings=true", "pretrain.optimizer.head=2.0"],
            "pretrain.optimizer.head = 2.0",
        ),
        (["align.reward.sampled=0", "align.reward.temperature=0.5"], "align.reward.temperature = 0.5"),
        (["align.align.value_coef=0", "align.align.value_clip=0.5"], "align.align.value_clip = 0.5"),
        (["align.align.iterations=1", "align.align.max_kl=3.0"], "align.align.max_kl = 3.0"),
        (
            ["align.align.epochs=1", "align.align.minibatches=1", "align.align.clip_range=0.1"],
            "align.align.clip_range",
        ),
        (["curate.mix.max_epochs=3.0"], "curate.mix.max_epochs = 3.0 has no effect: nothing is mixed"),
        (
            ["curate.dedup.fuzzy=false", "curate.dedup.bands=4"],
            "curate.dedup.bands = 4 has no effect: fuzzy = false",
        ),
        (["curate.decontaminate.ngram=9"], "curate.decontaminate.ngram = 9 has no effect: paths is empty"),
        (
            ['curate.steps=[{use="language", keep=["en"], drop_unknown=true}]'],
            "curate.steps.language.drop_unknown = true",
        ),
        (
            ['curate.steps=[{use="privacy", at_most=3}]'],
            'curate.steps.privacy.at_most = 3 has no effect: mode = "redact"',
        ),
        (
            ["runtime.ranks=1", "runtime.rank_timeout=9.0"],
            "runtime.rank_timeout = 9.0 has no effect: there is one rank",
        ),
        (
            ['runtime.layout={schedule="interleaved"}'],
            'runtime.layout.schedule = "interleaved" has no effect: pipeline = 1',
        ),
    ],
)
def test_a_key_that_another_switches_off_is_said(overrides: list[str], sentence: str) -> None:
    assert [found for found in sentences(*overrides) if sentence in found]
    assert not [found for found in sentences() if sentence in found]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            'curate.steps=[{use="length", min_chars=9, max_chars=3}]',
            "min_chars = 9 is above max_chars = 3: nothing",
        ),
        (
            'curate.steps=[{use="gopher_quality", min_words=9, max_words=3}]',
            "min_words = 9 is above max_words = 3",
        ),
        (
            'curate.steps=[{use="gopher_quality", min_stop_words=9}]',
            "min_stop_words = 9 is more than the 8 stop_words",
        ),
        ("curate.decontaminate={ngram=4, min_distinct=5}", "min_distinct = 5 is more than the ngram = 4"),
        (
            'pretrain={schedule="wsd", warmup_fraction=0.7}',
            "warmup_fraction + decay_fraction must be at most 1",
        ),
    ],
)
def test_bounds_that_nothing_can_pass_are_refused(override: str, words: str) -> None:
    with pytest.raises(BlueprintError) as refused:
        sentences(override)
    assert words in str(refused.value)
