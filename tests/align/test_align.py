"""An align step as people write it, and what the blueprint says when it's wrong."""

import tomllib

import pytest

from groundup.align.align import Align, AlignStep, align
from groundup.align.methods.ppo import Ppo
from groundup.align.methods.sft import Sft
from groundup.core.blueprint import load, to_toml
from groundup.core.errors import BlueprintError


def test_the_methods_keys_stand_beside_the_steps_own() -> None:
    table = {"name": "aligned", "use": "ppo", "kl_coef": 0.1, "inputs": {"start": "chat", "reward": "judge"}}
    step = load(AlignStep, table, [], "x.toml")
    assert step.method == Ppo(kl_coef=0.1)
    assert step.inputs == {"start": "chat", "reward": "judge"}
    assert load(AlignStep, {"name": "a", "use": "sft"}, ["epochs=2"], "x.toml").method == Sft(epochs=2)


def test_a_written_out_step_reads_back_the_same() -> None:
    step = AlignStep(name="aligned", method=Ppo(rollout_batch_size=7), inputs={"start": "chat"})
    assert load(AlignStep, tomllib.loads(to_toml(step)), [], "x.toml") == step


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"use": "ppo", "kl_coeff": 0.1}, "kl_coeff: unknown key. Did you mean `kl_coef`?"),
        ({"use": "pppo"}, "there is no method `pppo`. Did you mean `ppo`?"),
        ({"use": "sft", "epochs": -1}, "epochs = -1: Input should be greater than 0"),
        (
            {"kl_coef": 0.1},
            "name the method with `use = ...`; known: dpo, grpo, kto, orpo, ppo, reward, sft, simpo",
        ),
    ],
)
def test_mistakes_are_named(table: dict[str, object], message: str) -> None:
    with pytest.raises(BlueprintError) as caught:
        load(AlignStep, table, [], "x.toml")
    assert message in str(caught.value)


def test_the_stage_is_named_after_its_method() -> None:
    assert align.name(Align(method=Ppo())) == "ppo"
    assert align.name(Align(method=Sft())) == "sft"
