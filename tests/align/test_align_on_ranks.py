"""Fine-tuning, reward model and PPO on two ranks against one: the same losses, metrics, weights and resumed runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from align_ranks import Cases, align_all, logged
from align_world import SITE
from safetensors.torch import load_file

from groundup.align.methods.ppo import Ppo
from groundup.align.methods.reward import Reward
from groundup.align.methods.sft import Sft
from groundup.core.runtime import Layout
from groundup.core.stage import Metrics
from groundup.evaluate.tasks import Example
from groundup.parallel.launcher import launch
from groundup.train.optimizers.adamw import AdamW
from groundup.train.optimizers.muon import Muon

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
LAYOUTS = {"fsdp": Layout(), "tensor": Layout(tensor=2)}
LOGGED = {
    "sft": ("loss", "grad_norm"),
    "lora": ("loss", "grad_norm"),
    "muon": ("loss", "grad_norm"),
    "reward": ("loss", "grad_norm", "accuracy"),
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
    }
    return OneRank(folder, cases, align_all(cases, RUNTIME, folder, examples, start))


def assert_same_result(folder: Path, reference: OneRank, name: str) -> None:
    """The same numbers at every step, and the same weights up to rounding."""
    logs = (logged(root / name, *LOGGED[name]) for root in (folder, reference.folder))
    for step, (local, expected) in enumerate(zip(*logs, strict=True)):
        norm, expected_norm = local.pop("grad_norm"), expected.pop("grad_norm")
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
