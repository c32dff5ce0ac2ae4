"""Rotary angles and their scalings against transformers' own, and what a blueprint may say of them."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from decoders import OLMO3, QWEN3, SCALINGS, decoder
from pydantic import ValidationError
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from groundup.core.blueprint import load
from groundup.core.errors import BlueprintError
from groundup.core.recipe import Recipe
from groundup.model.architectures._hf_config import scaling_from_hf, scaling_to_hf
from groundup.model.architectures.qwen3 import Qwen3
from groundup.model.attention import document_positions
from groundup.model.config import DecoderConfig, RopeScaling
from groundup.model.rotary import rope_cos_sin
from groundup.train.pretrain import Pretrain

PUBLISHED: dict[str, tuple[float, dict[str, Any]]] = {
    "default": (10_000.0, {"rope_type": "default"}),
    "llama-3.1": (500_000.0, {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                              "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}),
    "llama-3.2": (500_000.0, {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
                              "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}),
    "linear": (10_000.0, {"rope_type": "linear", "factor": 4.0}),
    "qwen3-yarn": (1e6, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}),
    "olmo3-yarn": (500_000.0, {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8192,
                               "attention_factor": 1.2079441541679836, "beta_fast": 32, "beta_slow": 1}),
    "deepseek-yarn": (10_000.0, {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096,
                                 "mscale": 0.707, "mscale_all_dim": 1.0, "beta_fast": 16, "beta_slow": 2}),
    "yarn-untruncated": (150_000.0, {"rope_type": "yarn", "factor": 32.0, "truncate": False,
                                     "original_max_position_embeddings": 4096}),
    "longrope": (10_000.0, {"rope_type": "longrope", "original_max_position_embeddings": 4096,
                            "short_factor": [1 + n / 100 for n in range(64)],
                            "long_factor": [1 + n for n in range(64)]}),
}  # fmt: skip
POSITIONS = {"short": torch.arange(0, 4096, 37), "long": torch.arange(0, 131_072, 1009)}


@pytest.mark.parametrize("where", POSITIONS)
@pytest.mark.parametrize("name", PUBLISHED)
def test_cosines_and_sines_equal_those_of_transformers(name: str, where: str) -> None:
    theta, rope = PUBLISHED[name]
    said = {"hidden_size": 256, "num_attention_heads": 2, "max_position_embeddings": 131_072}
    theirs = LlamaConfig(**said, rope_parameters=rope | {"rope_theta": theta})
    positions = POSITIONS[where][None]
    cos, sin = LlamaRotaryEmbedding(theirs)(torch.zeros(1), positions)
    found_theta, scaling = scaling_from_hf(said | {"rope_parameters": rope, "rope_theta": theta})
    assert found_theta == theta
    ours = rope_cos_sin(positions, 128, found_theta, scaling)
    # transformers holds every angle twice, once for each number of a pair.
    torch.testing.assert_close(ours[0][:, 0].repeat(1, 1, 2), cos, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours[1][:, 0].repeat(1, 1, 2), sin, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", SCALINGS)
def test_a_published_scaling_comes_back(kind: str) -> None:
    said = {"rope_parameters": scaling_to_hf(SCALINGS[kind], 777.0), "max_position_embeddings": 64}
    assert scaling_from_hf(said) == (777.0, SCALINGS[kind])
    old = {"rope_scaling": {key if key != "rope_type" else "type": value
                            for key, value in scaling_to_hf(SCALINGS[kind], 777.0).items()
                            if key != "rope_theta"}}  # fmt: skip
    assert scaling_from_hf(said | {"rope_theta": 777.0} | old | {"rope_parameters": None}) == (
        777.0,
        SCALINGS[kind],
    )


def test_only_layers_without_a_window_are_stretched() -> None:
    scaled = replace(OLMO3, rope_scaling=SCALINGS["linear"], n_layers=4)
    positions = torch.arange(20)[None]
    turns = decoder(scaled)._cos_sin_by_window(positions)
    plain = decoder(OLMO3)._cos_sin_by_window(positions)
    assert turns[9] is not None and plain[9] is not None and turns[0] is not None and plain[0] is not None
    assert torch.equal(turns[9][0], plain[9][0])
    assert not torch.equal(turns[0][0], plain[0][0])


def test_learned_positions_begin_anew_in_every_document() -> None:
    segments = torch.tensor([[1, 1, 1, 2, 2, 3, -1, -1], [0, 0, 0, 0, 0, 0, 0, 0]])
    assert document_positions(segments).tolist() == [[0, 1, 2, 0, 1, 0, 0, 1], list(range(8))]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"kind": "yarn", "factor": 4}, "needs original_max_seq_len"),
        ({"kind": "linear", "factor": 4, "beta_fast": 3}, 'kind = "linear" has no beta_fast'),
        ({"kind": "llama3", "original_max_seq_len": 9, "low_freq_factor": 4}, "must be greater than"),
        ({"kind": "ntk"}, "'linear', 'yarn', 'llama3' or 'longrope'"),
        ({"kind": "linear", "factor": 0}, "greater than 0"),
    ],
)
def test_a_scaling_that_can_not_be_meant_is_refused(said: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RopeScaling.model_validate(said)


def test_longrope_wants_a_factor_for_every_pair() -> None:
    scaling = RopeScaling(kind="longrope", original_max_seq_len=9, short_factor=(1, 2), long_factor=(1, 2))
    with pytest.raises(ValueError, match="short_factor has 2 numbers; heads of 12 numbers have 6 pairs"):
        replace(QWEN3, rope_scaling=scaling)


class Plan(Recipe):
    """As a blueprint holds it."""

    pretrain: Pretrain = Pretrain()


def test_a_blueprint_sets_the_scaling_and_a_wrong_key_in_it_is_named() -> None:
    table = {"kind": "yarn", "factor": 4.0, "original_max_seq_len": 128}
    said = {"pretrain": {"architecture": {"use": "qwen3", "rope_scaling": table}}}
    plan = load(Plan, said, [], "mine.toml")
    assert isinstance(plan.pretrain.architecture, Qwen3)
    config = plan.pretrain.architecture.config(2, 96, 512)
    assert config.rope_scaling == RopeScaling(kind="yarn", factor=4.0, original_max_seq_len=128)
    assert DecoderConfig.from_json(config.to_json()) == config
    table["original_max_seq_length"] = 1
    with pytest.raises(
        BlueprintError, match=r"rope_scaling\.original_max_seq_length: unknown key\. Did you mean"
    ):
        load(Plan, said, [], "mine.toml")
