"""Which step reads which, and what cannot fit together."""

from typing import Any

import pytest

from groundup.core.blueprint import load
from groundup.core.errors import BlueprintError
from groundup.pipeline import Blueprint

SOURCES = {"ingest": {"sources": [{"use": "stdlib"}]}, "tasks": [{"use": "passages"}]}
SFT, REWARD, PPO = ({"name": name, "use": use} for name, use in
                    (("tune", "sft"), ("judge", "reward"), ("push", "ppo")))  # fmt: skip


def plan(*align: dict[str, Any], **changes: Any) -> Blueprint:
    return load(Blueprint, SOURCES | {"align": list(align)} | changes, [], "test")


def test_a_step_reads_the_newest_that_fits() -> None:
    assert plan(SFT, REWARD, PPO).align_inputs() == {
        "tune": {"start": "pretrain"},
        "judge": {"start": "tune"},
        "push": {"start": "tune", "reward": "judge"},
    }
    assert plan(SFT, REWARD, PPO).final_policy() == "push"
    assert plan(SFT, REWARD).final_policy() == "tune"
    assert plan().final_policy() == "pretrain"


def test_a_step_may_name_its_inputs() -> None:
    other = {"name": "again", "use": "sft", "inputs": {"start": "pretrain"}}
    assert plan(SFT, other).align_inputs()["again"] == {"start": "pretrain"}


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([SFT, PPO], "needs a reward model for `reward`, and no step before it makes one"),
        ([SFT, SFT], "two stages are called `tune`"),
        ([SFT | {"name": "book"}], "`book`"),
        ([SFT | {"inputs": {"reward": "pretrain"}}], "doesn't read `reward`, only start"),
        (
            [SFT | {"inputs": {"start": "nobody"}}],
            "inputs.start = `nobody` is no policy made before it",
        ),
    ],
)
def test_steps_that_do_not_fit_together_are_refused(steps: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(BlueprintError) as refused:
        plan(*steps)
    assert said in str(refused.value)


def test_a_blueprint_needs_sources_and_for_align_tasks() -> None:
    with pytest.raises(BlueprintError, match="the blueprint has no sources"):
        load(Blueprint, {"ingest": {"sources": []}}, [], "test")
    with pytest.raises(BlueprintError, match=r"learns from conversations, and no \[\[data\]\] that it reads"):
        plan(SFT, tasks=[])


def test_classifiers_have_names_of_their_own_and_steps_only_ask_for_those() -> None:
    asks = {"steps": [{"use": "model_filter", "classifier": "quality"}]}
    with pytest.raises(
        BlueprintError, match=r"needs the classifier `quality`, and the blueprint has: none. Add \[\[class"
    ):
        plan(curate=asks)
    made = {"name": "quality", "labelled": ["a.jsonl"]}
    assert plan(curate=asks, classifiers=[made]).classifiers[0].name == "quality"
    with pytest.raises(BlueprintError, match="two stages are called `classifier-quality`"):
        plan(classifiers=[made, made])


def test_a_classifier_may_have_the_name_of_anything_else() -> None:
    names = ["raw", "recipe", "label"]
    labels = plan(classifiers=[{"name": name} for name in names]).labels()
    assert labels[:5] == ["ingest", "classifier-raw", "classifier-recipe", "classifier-label", "curate"]


def test_the_labels_are_those_of_the_pipeline_in_order() -> None:
    assert plan(SFT, REWARD, PPO).labels() == [
        "ingest", "curate", "tokenizer", "tokenize", "data", "pretrain", "tune", "judge", "push", "evaluate", "book"
    ]  # fmt: skip
