"""GRPO on a tiny task: scores rise, groups are whole, off-policy numbers are those of the first update."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from align_helpers import SITE, method_context

from groundup.align.align import train_with
from groundup.align.methods.grpo import Grpo
from groundup.core.recipe import Recipe
from groundup.evaluate.alignment_data import AlignmentData
from groundup.evaluate.tasks import Example
from groundup.evaluate.verifiers import Score
from groundup.evaluate.verifiers.regex import Regex
from groundup.evaluate.verifiers.weighted_sum import WeightedSum
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.optimizers.adamw import AdamW

SETTINGS: dict[str, Any] = {"optimizer": AdamW(lr=3e-3, weight_decay=0.0), "precision": "fp32", "held_out": 12,
                            "max_new_tokens": 12, "prompts": 6, "group_size": 6}  # fmt: skip
HAS_E = WeightedSum(parts=(Regex(pattern="e"), Regex(pattern="o")), weights=(1.0, 0.5))
VARIANTS: dict[str, dict[str, Any]] = {
    "grpo": {"aggregation": "response_mean", "clip_high": 0.2},
    "dr_grpo": {"advantages": "none", "aggregation": "constant"},
    "rloo": {"advantages": "leave_one_out", "aggregation": "constant"},
    "dapo": {"max_resamples": 2, "overlong_buffer": 4},
    "gspo": {"ratio": "sequence", "aggregation": "response_mean", "clip_low": 0.05, "clip_high": 0.05},
    "cispo": {"clipping": "weight", "clip_low": 1.0},
    "kl": {"kl_coef": 0.05},
}


class Constant(Recipe):
    """Gives every response the same score."""

    def score(self, prompt: str, response: str, reference: str) -> Score:
        return Score(0.3)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if "loss" in line]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_raises_the_verifiers_score(
    variant: str, examples: list[Example], tokenizer: Tokenizer, start: Path, tmp_path: Path
) -> None:
    method = Grpo(iterations=8, verifier=HAS_E, missing_eos_penalty=0.0, **SETTINGS | VARIANTS[variant])
    context = method_context(tmp_path, examples, tokenizer, SITE, start=start)
    metrics = train_with(method, context)
    context.stage.close_log()
    lines = lines_of(tmp_path)
    assert metrics["reward_after"] > metrics["reward_before"]
    assert {
        "score_verifier",
        "score_regex_1",
        "score_regex_2",
        "equal_groups",
        "sampler_difference",
    } <= lines[0].keys()
    assert lines[0]["ratio_distance"] == pytest.approx(0, abs=1e-4), (
        "the first update is on the sampling policy"
    )
    assert lines[1]["ratio_distance"] > 1e-3
    assert all(line["sampler_difference"] < 1e-3 for line in lines)


def test_groups_of_equal_rewards_are_counted_and_change_no_weight(
    examples: list[Example], tokenizer: Tokenizer, start: Path, tmp_path: Path
) -> None:
    method = Grpo(iterations=1, verifier=Constant(), missing_eos_penalty=0.0, max_resamples=1, **SETTINGS)
    context = method_context(tmp_path, examples, tokenizer, SITE, start=start)
    train_with(method, context)
    context.stage.close_log()
    for line in lines_of(tmp_path):
        assert line["equal_groups"] == 1
        assert line["loss"] == 0
        assert line["grad_norm"] == 0


def test_dynamic_sampling_replaces_groups_of_equal_rewards(
    examples: list[Example], tokenizer: Tokenizer, start: Path, tmp_path: Path
) -> None:
    rare = Regex(pattern="z")
    method = Grpo(iterations=1, verifier=rare, missing_eos_penalty=0.0, max_resamples=3, **SETTINGS)
    session: Any = method.prepare(method_context(tmp_path, examples, tokenizer, SITE, start=start))
    session.batches(0)
    advantages = session.iteration.advantages.view(-1, method.group_size)
    assert 0 < session.iteration.metrics["equal_groups"] < 1
    assert (advantages.abs().sum(dim=1) > 0).all()


def test_filtered_overlong_responses_have_no_weight_and_leave_the_denominator(
    examples: list[Example], tokenizer: Tokenizer, start: Path, tmp_path: Path
) -> None:
    method = Grpo(iterations=1, verifier=HAS_E, overlong="filter", minibatches=1, **SETTINGS)
    session: Any = method.prepare(method_context(tmp_path, examples, tokenizer, SITE, start=start))
    batches = session.batches(0)
    ended = session.iteration.groups.rollouts.ended
    assert not ended.all()
    total = sum(float(batch.weights.sum()) for batch in batches)
    assert total == pytest.approx(1.0 if ended.any() else 0.0, abs=1e-5)


def test_log_probabilities_are_tempered_in_sampler_and_trainer_alike(
    examples: list[Example], tokenizer: Tokenizer, start: Path, tmp_path: Path
) -> None:
    """Tempered log-probabilities: at another temperature the first ratio is still 1."""
    method = Grpo(iterations=1, verifier=HAS_E, temperature=0.6, **SETTINGS)
    context = method_context(tmp_path, examples, tokenizer, SITE, start=start)
    train_with(method, context)
    context.stage.close_log()
    first = lines_of(tmp_path)[0]
    assert first["sampler_difference"] < 1e-3
    assert first["ratio_distance"] == pytest.approx(0, abs=1e-4)


def test_a_prompt_may_name_its_verifier(
    examples: list[Example], tokenizer: Tokenizer, start: Path, tmp_path: Path
) -> None:
    context = method_context(tmp_path, examples, tokenizer, SITE, start=start)
    prompts = [*context.data.prompts("train"), *context.data.prompts("held_out")]
    named = AlignmentData(replace(one, verifier="exact") for one in prompts)
    session: Any = Grpo(iterations=1, verifier=Constant(), **SETTINGS).prepare(replace(context, data=named))
    assert session.sampler.scorer.parts(session.train_prompts[0], "wrong") == {"verifier": 0.0}
    assert session.sampler.scorer.parts(session.train_prompts[0], session.train_prompts[0].answer or "") == {
        "verifier": 1.0
    }


def test_groups_are_responses_to_one_prompt_and_differ(
    examples: list[Example], tokenizer: Tokenizer, start: Path, tmp_path: Path
) -> None:
    method = Grpo(iterations=1, verifier=HAS_E, **SETTINGS)
    session: Any = method.prepare(method_context(tmp_path, examples, tokenizer, SITE, start=start))
    session.batches(0)
    rollouts = session.iteration.groups.rollouts
    for group in range(method.prompts):
        rows = session._rows(group)
        assert len({tuple(rollouts.prompts[row]) for row in rows}) == 1
        assert len({tuple(rollouts.responses[row]) for row in rows}) > 1
    sums = session.iteration.advantages.view(-1, method.group_size).sum(dim=1)
    assert torch.allclose(sums, torch.zeros(method.prompts), atol=1e-4)


def test_only_a_weighted_reward_model_is_an_input() -> None:
    assert set(Grpo().inputs) == {"start"}
    assert set(Grpo(reward_model_weight=0.5).inputs) == {"start", "reward"}
