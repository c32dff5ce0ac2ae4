"""Align steps that can't work: found from the recipe, the ranks and the lengths of the prompts."""

from typing import Any

import pytest

from groundup.align.align import AlignStep
from groundup.core.runtime import Layout, Runtime
from groundup.plan.step_checks import PromptLengths, data_problems, limit_problems, recipe_problems


def step(use: str, **keys: Any) -> AlignStep:
    return AlignStep.model_validate({"name": "step", "use": use} | keys)


def lengths(prompts: tuple[int, ...], answer: int = 10, groups: int = 9) -> PromptLengths:
    answers = tuple(f"answer {number}" for number in range(len(prompts)))
    return PromptLengths(len(prompts), groups, prompts, tuple(n + answer for n in prompts), answers)


MANY = lengths((20,) * 40)


@pytest.mark.parametrize(
    ("use", "keys", "words"),
    [
        ("ppo", {"max_new_tokens": 64}, "align.step.max_new_tokens = 64 leaves no room for a prompt"),
        ("reward", {"max_new_tokens": 100}, "align.step.max_new_tokens = 100 leaves no room"),
        (
            "ppo",
            {"rollout_batch_size": 2, "max_new_tokens": 8},
            "rollout_batch_size = 2 is less than minibatches = 3",
        ),
        ("sft", {"seq_len": 128}, "seq_len = 128 is longer than the model's context of 64"),
    ],
)
def test_recipes_that_contradict_themselves_or_the_context_are_impossible(
    use: str, keys: dict[str, Any], words: str
) -> None:
    [problem] = recipe_problems(step(use, **keys), 64, Runtime(), 1)
    assert problem.impossible
    assert words in problem.text


def test_rows_that_the_ranks_cannot_divide_are_impossible() -> None:
    [problem] = recipe_problems(step("sft", batch_rows=6), 64, Runtime(ranks=4), 4)
    assert "batch_rows = 6 can't be divided among 4 data-parallel ranks" in problem.text
    layout = Runtime(ranks=4, layout=Layout(tensor=2))
    assert list(recipe_problems(step("sft", batch_rows=6), 64, layout, 4)) == []


def test_an_engine_or_an_axis_that_a_later_method_does_not_support_is_impossible() -> None:
    [engine] = recipe_problems(step("ppo"), 512, Runtime(engine={"use": "deepspeed"}), 1)
    assert 'runtime.engine.use = "deepspeed" does not support the method `ppo`' in engine.text
    [axis] = recipe_problems(step("sft"), 512, Runtime(layout=Layout(pipeline=2)), 2)
    assert "runtime.layout.pipeline = 2" in axis.text


def test_no_questions_and_none_held_out_are_impossible() -> None:
    for train, held_out in ((lengths(()), MANY), (MANY, lengths(()))):
        [problem] = data_problems(step("sft"), 64, train, held_out)
        assert problem.impossible
        assert f"{train.count} prompts to train on and {held_out.count} held out" in problem.text


@pytest.mark.parametrize("use", ["sft", "reward", "ppo"])
def test_a_row_shorter_than_the_shortest_conversation_is_impossible(use: str) -> None:
    keys = {} if use == "sft" else {"max_new_tokens": 8}
    found = [item for item in data_problems(step(use, **keys), 20, MANY, MANY) if item.impossible]
    assert len(found) == 2
    assert "none of its training prompts fits into a packed sequence of 20 tokens" in found[0].text


def test_prompts_of_which_most_do_not_fit_are_a_warning() -> None:
    mixed = lengths((20, 60, 70, 80))
    found = list(data_problems(step("ppo", max_new_tokens=8), 64, mixed, mixed))
    assert [item.impossible for item in found] == [False, False]
    assert (
        "only 25% of its training prompts fit into a packed sequence of 64 tokens with max_new_tokens = 8"
        in found[0].text
    )


def test_few_held_out_answers_give_no_reward_scale() -> None:
    [problem] = data_problems(step("reward", max_new_tokens=8), 64, MANY, lengths((20, 20, 20)))
    assert problem.impossible
    assert "3 different held-out answers fit into 64 tokens" in problem.text


def test_held_out_prompts_of_few_documents_are_a_warning() -> None:
    [problem] = data_problems(step("sft"), 64, MANY, lengths((20,) * 8, groups=1))
    assert not problem.impossible
    assert "the 8 held-out prompts come from 1 documents" in problem.text


def test_epochs_that_max_tokens_cuts_short_have_no_effect() -> None:
    [problem] = limit_problems(step("sft", epochs=3.0, max_tokens=780), MANY)
    assert (
        "epochs = 3 has no effect: max_tokens = 780 ends the step after about 0.65 of one pass"
        in problem.text
    )
    assert list(limit_problems(step("sft", epochs=3.0, max_tokens=78_000), MANY)) == []
    assert list(limit_problems(step("sft", epochs=3.0, max_tokens=0), MANY)) == []  # no limit
