"""Alignment methods on two ranks against one: the same losses, metrics, weights and resumed runs."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from align_helpers import SITE, method_context
from align_ranks import Cases, align_all, logged
from safetensors.torch import load_file

from groundup.align.methods import Method
from groundup.align.methods.dpo import Dpo
from groundup.align.methods.grpo import Grpo
from groundup.align.methods.kto import Kto
from groundup.align.methods.ppo import Ppo
from groundup.align.methods.reward import Reward
from groundup.align.methods.sft import Sft
from groundup.core.errors import GroundupError
from groundup.core.runtime import Layout
from groundup.core.stage import Metrics
from groundup.evaluate.tasks import Example
from groundup.evaluate.verifiers.regex import Regex
from groundup.parallel.engines.deepspeed import DeepSpeed
from groundup.parallel.engines.megatron import Megatron
from groundup.parallel.launcher import launch
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.optimizers.adamw import AdamW
from groundup.train.optimizers.muon import Muon

pytestmark = pytest.mark.cluster
TIMEOUT = 120.0
RUNTIME = SITE.model_copy(update={"micro_batch": 2, "checkpoint_seconds": 600.0})
"""Two micro-batches per step and data-parallel rank; saved are the last step and the one at which ranks stop."""
ADAM = AdamW(lr=1e-3)
SFT = Sft(epochs=2, batch_rows=8, optimizer=ADAM, precision="fp32")
LORA = SFT.model_copy(update={"lora_rank": 4})
MUON = SFT.model_copy(update={"optimizer": Muon(lr=0.01, adam_lr=0.01)})
REWARD = Reward(other=48, truncated=24, garbled=24, sampled=16, held_out=6, epochs=2, batch_rows=8,
                optimizer=ADAM, max_new_tokens=16, precision="fp32")  # fmt: skip
PPO = Ppo(iterations=2, rollout_batch_size=14, minibatches=2, epochs=2, max_new_tokens=16, held_out=6,
          optimizer=AdamW(lr=1e-3), precision="fp32")  # fmt: skip
PREFERENCES: dict[str, Any] = {"made": 16, "epochs": 2, "held_out": 6, "batch_rows": 8, "optimizer": ADAM,
                               "precision": "fp32"}  # fmt: skip
DPO = Dpo(**PREFERENCES)
DPO_LORA = Dpo(lora_rank=4, **PREFERENCES)
KTO = Kto(**PREFERENCES)
GRPO = Grpo(iterations=2, prompts=5, group_size=3, minibatches=2, max_new_tokens=16, held_out=6, max_resamples=1,
            kl_coef=0.05, verifier=Regex(pattern="e"), optimizer=AdamW(lr=1e-3, eps=1e-4),
            precision="fp32")  # fmt: skip
"""Its gradients are small: with Adam's own epsilon, rounding decides the direction of single weights."""
LAYOUTS = {"fsdp": Layout(), "tensor": Layout(tensor=2)}
LOGGED = {
    "sft": ("loss", "grad_norm"),
    "lora": ("loss", "grad_norm"),
    "muon": ("loss", "grad_norm"),
    "reward": ("loss", "grad_norm", "accuracy"),
    "dpo": ("loss", "grad_norm", "chosen_log_ratio", "rejected_log_ratio"),
    "dpo_lora": ("loss", "grad_norm", "chosen_log_ratio", "rejected_log_ratio"),
    "kto": ("loss", "grad_norm", "good_log_ratio", "bad_log_ratio", "reference_point"),
    "grpo": ("loss", "grad_norm", "reward", "kl", "equal_groups", "clipped", "ratio_distance"),
    "ppo": (
        "loss",
        "grad_norm",
        "policy_loss",
        "value_loss",
        "reward",
        "kl",
        "response_tokens",
        "ended",
        "value_error",
    ),
}


@dataclass(frozen=True)
class OneRank:
    """The results of one rank, and the cases that made them."""

    folder: Path
    cases: Cases
    metrics: dict[str, Metrics]


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory, examples: list[Example], start: Path) -> OneRank:
    folder = tmp_path_factory.mktemp("one-rank")
    inputs = {"start": folder / "sft", "reward": folder / "reward"}
    cases: Cases = {
        "sft": (SFT, {"start": start}),
        "lora": (LORA, {"start": start}),
        "muon": (MUON, {"start": start}),
        "reward": (REWARD, {"start": folder / "sft"}),
        "ppo": (PPO, inputs),
        "dpo": (DPO, {"start": folder / "sft"}),
        "dpo_lora": (DPO_LORA, {"start": folder / "sft"}),
        "kto": (KTO, {"start": folder / "sft"}),
        "grpo": (GRPO, {"start": folder / "sft"}),
    }
    return OneRank(folder, cases, align_all(cases, RUNTIME, folder, examples, start))


def assert_same_result(folder: Path, reference: OneRank, name: str) -> None:
    """The same numbers at every step, and the same weights up to rounding."""
    logs = (logged(root / name, *LOGGED[name]) for root in (folder, reference.folder))
    for step, (local, expected) in enumerate(zip(*logs, strict=True)):
        norm, expected_norm = local.pop("grad_norm"), expected.pop("grad_norm")
        if name == "grpo":  # the mean of small differences between log-probabilities of the updated weights
            assert local.pop("kl") == pytest.approx(expected.pop("kl"), abs=1e-4), f"{name}, step {step + 1}"
        assert local == pytest.approx(expected, rel=1e-5, abs=1e-5), f"{name}, step {step + 1}"
        assert norm == pytest.approx(expected_norm, rel=1e-4), f"{name}, step {step + 1}"
    weights, expected_weights = (
        load_file(root / name / "model.safetensors") for root in (folder, reference.folder)
    )
    assert weights.keys() == expected_weights.keys()
    for key, tensor in weights.items():
        torch.testing.assert_close(tensor, expected_weights[key], rtol=1e-3, atol=1e-4, msg=f"{name}: {key}")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_ranks_give_the_losses_metrics_and_weights_of_one(
    layout: str, one_rank: OneRank, examples: list[Example], start: Path, tmp_path: Path
) -> None:
    runtime = RUNTIME.model_copy(update={"layout": LAYOUTS[layout]})
    metrics = launch(align_all, (one_rank.cases, runtime, tmp_path, examples, start), 2, TIMEOUT)
    for name in one_rank.cases:
        assert_same_result(tmp_path, one_rank, name)
        assert steady(metrics[name]) == pytest.approx(steady(one_rank.metrics[name]), rel=1e-3, abs=1e-3)


def steady(metrics: Metrics) -> dict[str, Any]:
    """The metrics that do not depend on time."""
    return {key: value for key, value in metrics.items() if isinstance(value, float) and "second" not in key}


@pytest.mark.parametrize(
    ("name", "stop_at"), [("reward", 5), ("ppo", 4), ("dpo", 3), ("kto", 3), ("grpo", 2)]
)
def test_ranks_resume_where_they_stopped_and_one_rank_finishes_their_training(
    name: str, stop_at: int, one_rank: OneRank, examples: list[Example], start: Path, tmp_path: Path
) -> None:
    """Stopped on two ranks, then finished on two ranks and, from a copy, on one: the uninterrupted training."""
    cases = {name: one_rank.cases[name]}
    folders = [tmp_path / "two", tmp_path / "one"]
    with pytest.raises(SystemExit):
        launch(align_all, (cases, RUNTIME, folders[0], examples, start, 0, stop_at), 2, TIMEOUT)
    states = [path.name for path in (folders[0] / name / "resume").glob("step-*")]
    assert states == [f"step-{stop_at:09d}"]
    shutil.copytree(folders[0], folders[1])
    launch(align_all, (cases, RUNTIME, folders[0], examples, start), 2, TIMEOUT)
    align_all(cases, RUNTIME, folders[1], examples, start)
    for folder in folders:
        assert_same_result(folder, one_rank, name)


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        (PPO, {"engine": DeepSpeed()}, r'"deepspeed" does not support the method `ppo`. Use native'),
        (
            SFT,
            {"engine": Megatron()},
            r'"megatron" does not support the method `sft`. Use deepspeed or native',
        ),
        (
            SFT,
            {"layout": Layout(pipeline=2)},
            r"layout.pipeline = 2: the method `sft` does not support this axis",
        ),
        (
            REWARD,
            {"layout": Layout(context=2)},
            r"layout.context = 2: .* `reward` does not support this axis",
        ),
    ],
)
def test_an_engine_or_axis_that_a_method_does_not_support_is_refused_before_anything_is_loaded(
    method: Method,
    changes: dict[str, Any],
    message: str,
    examples: list[Example],
    start: Path,
    tmp_path: Path,
) -> None:
    runtime = RUNTIME.model_copy(update=changes)
    config_only = tmp_path / "start"
    config_only.mkdir()
    shutil.copy(start / "config.json", config_only)
    inputs = {"start": config_only, "reward": tmp_path / "missing"}
    context = method_context(tmp_path / "work", examples, Tokenizer.load(start), runtime, **inputs)
    with pytest.raises(GroundupError, match=message):
        method.prepare(context)


def test_rows_that_ranks_cannot_divide_are_refused(
    one_rank: OneRank, examples: list[Example], start: Path, tmp_path: Path
) -> None:
    odd = {"sft": (SFT.model_copy(update={"batch_rows": 3}), {"start": start})}
    with pytest.raises(GroundupError, match="3 rows of a step can't be divided among 2 data-parallel ranks"):
        launch(align_all, (odd, RUNTIME, tmp_path, examples, start), 2, TIMEOUT)
