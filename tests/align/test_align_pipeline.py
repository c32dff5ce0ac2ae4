"""sft -> reward -> ppo in miniature, and each of them killed in the middle."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from align_helpers import SITE, TIME, method_context

from groundup.align.align import train_with
from groundup.align.methods import Method, MethodContext, Session
from groundup.align.methods.ppo import Ppo
from groundup.align.methods.reward import Reward
from groundup.align.methods.sft import Sft
from groundup.align.rollouts import BatchShape, RewardModel, rollout_log_probs, sample
from groundup.core.errors import DataError
from groundup.core.stage import Metrics
from groundup.evaluate.tasks import Example
from groundup.infer.engine import Engine
from groundup.model.checkpoint import load_decoder, load_value_model
from groundup.parallel.hardware import choose_hardware
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.optimizers.adamw import AdamW
from groundup.train.optimizers.muon import Muon

FAST = Muon(lr=0.02, adam_lr=0.02)
SFT = Sft(epochs=12, batch_rows=8, optimizer=FAST, precision="fp32")
REWARD = Reward(other=96, truncated=64, garbled=64, sampled=32, held_out=12, epochs=6, batch_rows=8,
                optimizer=FAST, max_new_tokens=24, precision="fp32")  # fmt: skip
PPO = Ppo(iterations=3, rollout_batch_size=24, minibatches=2, epochs=2, max_new_tokens=24, held_out=8,
          optimizer=AdamW(lr=1e-3), precision="fp32")  # fmt: skip


@dataclass(frozen=True)
class River:
    """Folders and metrics of one pass through all three methods."""

    folders: dict[str, Path]
    metrics: dict[str, Metrics]


@pytest.fixture(scope="module")
def river(
    tmp_path_factory: pytest.TempPathFactory, examples: list[Example], tokenizer: Tokenizer, start: Path
) -> River:
    base = tmp_path_factory.mktemp("river")
    folders = {name: base / name for name in ("sft", "reward", "ppo")}
    reads = {"sft": {"start": start}, "reward": {"start": folders["sft"]},
             "ppo": {"start": folders["sft"], "reward": folders["reward"]}}  # fmt: skip
    methods: dict[str, Method] = {"sft": SFT, "reward": REWARD, "ppo": PPO}
    metrics = {
        name: train_with(method, method_context(folders[name], examples, tokenizer, **reads[name]))
        for name, method in methods.items()
    }
    return River(folders, metrics)


def test_fine_tuning_teaches_the_answers_of_held_out_questions(river: River) -> None:
    metrics = river.metrics["sft"]
    assert metrics["val_loss"] < 0.5 * metrics["val_loss_before"]


def test_the_conversations_that_are_never_read_are_reported(
    tmp_path: Path, examples: list[Example], tokenizer: Tokenizer, start: Path
) -> None:
    method = SFT.model_copy(update={"max_tokens": 3 * SFT.batch_rows * TIME, "epochs": 50.0})
    session = method.prepare(method_context(tmp_path, examples, tokenizer, start=start))
    budget = session.budget
    assert (budget.steps, budget.ended_by) == (3, "max_tokens")
    assert 0 < budget.unread_share < 1
    assert budget.epochs == pytest.approx(1 - budget.unread_share)


def test_the_mask_shown_to_people_covers_the_answer_and_its_end(
    river: River, examples: list[Example]
) -> None:
    shown = json.loads((river.folders["sft"] / "examples.json").read_text())
    assert shown
    by_question = {example.question: example.answer for example in examples}
    for (read, learnt_first), (learnt, learnt_second) in shown:
        assert (learnt_first, learnt_second) == (False, True)
        question = read.removeprefix("<|begin_of_text|><|user|>").removesuffix("<|end_of_turn|><|assistant|>")
        assert learnt == by_question[question] + "<|end_of_turn|>"


def test_the_reward_model_tells_every_kind_of_wrong_answer(river: River) -> None:
    metrics = river.metrics["reward"]
    assert set(metrics["accuracy_by_kind"]) == {"other", "truncated", "garbled", "sampled"}
    assert metrics["accuracy_by_kind"]["truncated"] > 0.8
    assert metrics["accuracy"] > 0.6


def test_ppo_reports_what_it_did(river: River) -> None:
    metrics = river.metrics["ppo"]
    low, high = metrics["reward_gain_interval"]
    gain = metrics["reward_after"] - metrics["reward_before"]
    assert low <= gain <= high
    assert metrics["kl"] != 0
    assert metrics["stopped_early"] is False
    samples = json.loads((river.folders["ppo"] / "samples.json").read_text())
    assert {"question", "reference", "before", "after", "reward_before", "reward_after"} <= samples[0].keys()


def test_every_policy_is_a_whole_checkpoint(river: River) -> None:
    for name in ("sft", "ppo"):
        names = {path.name for path in river.folders[name].iterdir()}
        assert {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json",
                "generation_config.json"} <= names  # fmt: skip
        assert load_decoder(river.folders[name]).config.max_seq_len == TIME


def test_every_policy_is_a_chat_model_whose_eos_token_ends_a_turn(river: River) -> None:
    for name in ("sft", "ppo"):
        config, tokenizer_config = (
            json.loads((river.folders[name] / file).read_text())
            for file in ("config.json", "tokenizer_config.json")
        )
        assert config["eos_token_id"] == Tokenizer.load(river.folders[name]).end_of_turn
        assert tokenizer_config["eos_token"] == "<|end_of_turn|>" and "chat_template" in tokenizer_config


def test_the_judges_scores_of_right_answers_are_normalised(river: River) -> None:
    said = json.loads((river.folders["reward"] / "reward.json").read_text())
    judge = RewardModel(load_value_model(river.folders["reward"]), said["mean"], said["std"])
    assert judge.normalised(torch.tensor(said["mean"])).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
def test_rollout_log_probabilities_equal_those_the_loss_starts_from(
    river: River, tokenizer: Tokenizer, examples: list[Example], temperature: float, tmp_path: Path
) -> None:
    policy = load_decoder(river.folders["sft"])
    world = method_context(tmp_path, examples, tokenizer)
    prompts = [tokenizer.encode(prompt.messages[0].content) for prompt in world.data.prompts("held_out")]
    engine = Engine(policy, {tokenizer.end_of_turn}, tokenizer.pad, TIME)
    rollouts = sample(engine, prompts, 24, temperature, 0, tokenizer.end_of_turn)
    trainers = rollout_log_probs(policy, rollouts, BatchShape(3, TIME, tokenizer.pad), temperature)
    assert torch.allclose(trainers, rollouts.log_probs, atol=1e-4)
    assert rollouts.mask.sum() > 40


class _Killed(Exception):
    pass


@dataclass(frozen=True)
class _Dying:
    """A method whose session dies at a step, as after kill -9: nothing is saved at the end."""

    method: Any
    step: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.method, name)

    def prepare(self, context: MethodContext) -> Session:
        session = self.method.prepare(context)
        whole = session.batches

        def batches(step: int) -> Any:
            if step == self.step:
                raise _Killed
            return whole(step)

        session.batches = batches
        return session


@pytest.mark.parametrize(("name", "step"), [("sft", 4), ("reward", 5), ("ppo", 6), ("ppo", 11)])
def test_a_killed_method_resumes_to_the_same_bytes(
    name: str,
    step: int,
    river: River,
    tmp_path: Path,
    examples: list[Example],
    tokenizer: Tokenizer,
    start: Path,
) -> None:
    method = {"sft": SFT, "reward": REWARD, "ppo": PPO}[name]
    reads = {"start": start if name == "sft" else river.folders["sft"]}
    reads |= {"reward": river.folders["reward"]} if name == "ppo" else {}
    with pytest.raises(_Killed):
        train_with(_Dying(method, step), method_context(tmp_path, examples, tokenizer, **reads))
    assert list((tmp_path / "resume").glob("step-*"))
    metrics = train_with(method, method_context(tmp_path, examples, tokenizer, **reads))
    for file in ("model.safetensors", "samples.json" if name == "ppo" else "config.json"):
        assert (tmp_path / file).read_bytes() == (river.folders[name] / file).read_bytes()
    steady = {key: value for key, value in metrics.items() if "second" not in key}
    assert steady == {key: river.metrics[name][key] for key in steady}


def test_ppo_stops_when_the_policy_is_too_far_away(
    river: River, tmp_path: Path, examples: list[Example], tokenizer: Tokenizer
) -> None:
    reads = {"start": river.folders["sft"], "reward": river.folders["reward"]}
    method = PPO.model_copy(update={"max_kl": 1e-6, "iterations": 8, "optimizer": AdamW(lr=0.02)})
    metrics = train_with(method, method_context(tmp_path, examples, tokenizer, **reads))
    assert metrics["stopped_early"] is True
    assert metrics["steps"] < 8 * 4


def test_questions_that_leave_no_room_for_an_answer_are_refused_in_words(
    river: River, tmp_path: Path, examples: list[Example], tokenizer: Tokenizer
) -> None:
    reads = {"start": river.folders["sft"], "reward": river.folders["reward"]}
    method = PPO.model_copy(update={"max_new_tokens": TIME - 2})
    with pytest.raises(DataError, match="max_new_tokens = 62 in a packed sequence of 64"):
        method.prepare(method_context(tmp_path, examples, tokenizer, **reads))


def test_the_test_site_is_the_plain_one() -> None:
    assert not choose_hardware(SITE, "fp32").can_compile


def test_a_reward_model_takes_no_more_tokens_than_it_may(
    river: River, tmp_path: Path, examples: list[Example], tokenizer: Tokenizer
) -> None:
    method = REWARD.model_copy(update={"max_tokens": 5 * 8 * TIME + 1, "sampled": 0})
    session = method.prepare(method_context(tmp_path, examples, tokenizer, start=river.folders["sft"]))
    assert session.budget.steps == 5
