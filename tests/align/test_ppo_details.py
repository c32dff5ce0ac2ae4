"""Details of PPO that keys turn on: adapted KL coefficient, scaled rewards, a critic that is trained first."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from align_helpers import SITE, method_context
from safetensors.torch import load_file

from groundup.align.align import train_with
from groundup.align.kl_controller import KL_COEF_FILE, KlController, adaptive_kl_coef
from groundup.align.methods.ppo import Ppo
from groundup.align.methods.reward import Reward
from groundup.align.objectives import scaled
from groundup.evaluate.tasks import Example
from groundup.parallel.context import SINGLE
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.optimizers.adamw import AdamW

SETTINGS: dict[str, Any] = {"rollout_batch_size": 12, "minibatches": 1, "epochs": 1, "max_new_tokens": 8,
                            "held_out": 4, "optimizer": AdamW(lr=1e-3), "precision": "fp32"}  # fmt: skip


@pytest.fixture(scope="module")
def reward(
    examples: list[Example], tokenizer: Tokenizer, start: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("reward")
    method = Reward(other=8, truncated=4, garbled=4, sampled=0, held_out=6, max_tokens=256, precision="fp32")
    context = method_context(folder, examples, tokenizer, SITE, start=start)
    train_with(method, context)
    context.stage.close_log()
    return folder


def run(
    method: Ppo, folder: Path, examples: list[Example], tokenizer: Tokenizer, start: Path, reward: Path
) -> list[dict[str, Any]]:
    context = method_context(folder, examples, tokenizer, SITE, start=start, reward=reward)
    train_with(method, context)
    context.stage.close_log()
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if "loss" in line]


def test_the_kl_coefficient_adapts_to_its_target(
    examples: list[Example], tokenizer: Tokenizer, start: Path, reward: Path, tmp_path: Path
) -> None:
    """The KL divergence is below its target, so the coefficient falls, by 0.2 x responses / horizon an iteration."""
    method = Ppo(iterations=3, kl_target=50.0, kl_horizon=120, **SETTINGS)
    lines = run(method, tmp_path, examples, tokenizer, start, reward)
    assert [line["kl_coef"] for line in lines] == pytest.approx([0.1, 0.1 * 0.98, 0.1 * 0.98**2])
    assert all(line["sampler_difference"] < 1e-3 for line in lines)


def test_a_resumed_training_continues_with_the_kept_coefficients(tmp_path: Path) -> None:
    first = KlController(tmp_path, SINGLE, 0.1, 2.0, 100)
    first.observe(0, 4.0, 10)
    first.observe(1, 1.0, 10)
    resumed = KlController(tmp_path, SINGLE, 0.1, 2.0, 100)
    assert [resumed.coef(i) for i in range(3)] == [first.coef(i) for i in range(3)]
    resumed.observe(1, 1.0, 10)
    assert json.loads((tmp_path / KL_COEF_FILE).read_text()) == [first.coef(i) for i in range(3)]


def test_without_a_target_the_coefficient_is_constant_and_nothing_is_written(tmp_path: Path) -> None:
    constant = KlController(tmp_path, SINGLE, 0.1, 0.0, 100)
    constant.observe(0, 400.0, 10)
    assert constant.coef(7) == 0.1
    assert not (tmp_path / KL_COEF_FILE).exists()


def test_the_critic_alone_is_trained_in_the_first_iterations(
    examples: list[Example], tokenizer: Tokenizer, start: Path, reward: Path, tmp_path: Path
) -> None:
    optimizer = AdamW(lr=1e-3, weight_decay=0.0)
    settings = SETTINGS | {"optimizer": optimizer, "iterations": 2}
    run(Ppo(value_iterations=2, **settings), tmp_path / "critic", examples, tokenizer, start, reward)
    run(Ppo(**settings), tmp_path / "both", examples, tokenizer, start, reward)
    weights = load_file(start / "model.safetensors")
    kept, moved = (load_file(tmp_path / name / "model.safetensors") for name in ("critic", "both"))
    assert all(torch.equal(kept[key], weights[key]) for key in weights)
    assert any(not torch.equal(moved[key], weights[key]) for key in weights)


def test_scaled_rewards_have_variance_one_and_keep_their_sign() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    x = torch.tensor([[1.0, 3.0, float("nan")], [8.0, 100.0, 7.0]])
    inside = torch.tensor([1.0, 3.0, 8.0])
    expected = inside / inside.std(unbiased=False)
    assert torch.allclose(scaled(x, mask)[mask], expected)
    assert scaled(x, mask)[~mask].tolist() == [0.0, 0.0, 0.0]


def test_the_adaptive_kl_coefficient_moves_towards_its_target_by_at_most_a_fifth_of_a_horizon() -> None:
    assert adaptive_kl_coef(0.2, 6.0, 6.0, 10_000, 256) == pytest.approx(0.2)
    assert adaptive_kl_coef(0.2, 6.6, 6.0, 10_000, 256) == pytest.approx(0.2 * (1 + 0.1 * 256 / 10_000))
    assert adaptive_kl_coef(0.2, 60.0, 6.0, 10_000, 256) == pytest.approx(0.2 * (1 + 0.2 * 256 / 10_000))
    assert adaptive_kl_coef(0.2, 0.0, 6.0, 10_000, 256) == pytest.approx(0.2 * (1 - 0.2 * 256 / 10_000))
