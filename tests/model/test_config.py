"""Shapes: the rules of the one dial, and config.json both ways."""

from dataclasses import replace
from typing import Any

import pytest
from decoders import BOTH, LLAMA, QWEN3

from groundup.model import counts
from groundup.model.architectures.llama import Llama
from groundup.model.architectures.qwen3 import Qwen3
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.model.heads import ScalarModel
from groundup.model.published import config_json, read_config_json


@pytest.mark.parametrize("name", BOTH)
def test_config_json_and_back(name: str) -> None:
    assert read_config_json(config_json(BOTH[name])) == BOTH[name]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "gpt2"}, "gpt2"),
        ({"attention_bias": True}, "biases"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "yarn"),
    ],
)
def test_what_this_decoder_does_not_compute_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_config_json(config_json(LLAMA) | change)


def test_a_published_config_without_our_extra_keys_is_read() -> None:
    said = {"model_type": "llama", "vocab_size": 32000, "hidden_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "intermediate_size": 128, "rms_norm_eps": 1e-5,
            "rope_theta": 5e5, "max_position_embeddings": 2048}  # fmt: skip
    config = read_config_json(said)
    assert (config.n_kv_heads, config.head_dim, config.rope_theta) == (4, 16, 5e5)


def test_width_and_heads_follow_from_depth() -> None:
    config = Qwen3().config(depth=6, vocab_size=4096, max_seq_len=512)
    assert (config.d_model, config.n_heads, config.head_dim, config.d_ff) == (384, 6, 64, 1024)
    assert Llama().config(6, 4096, 512).qk_norm == "none"


def test_heads_that_do_not_divide_the_width_are_refused_with_a_way_out() -> None:
    with pytest.raises(ValueError, match=r"n_heads = 5 does not divide d_model = 256.*Try n_heads = 4"):
        Qwen3(n_heads=5).config(depth=4, vocab_size=64, max_seq_len=64)
    with pytest.raises(ValueError, match="n_kv_heads = 3 does not divide n_heads = 4"):
        Qwen3(n_kv_heads=3).config(depth=4, vocab_size=64, max_seq_len=64)


@pytest.mark.parametrize("config", [QWEN3, LLAMA, replace(QWEN3, n_kv_heads=1, n_layers=1)])
def test_parameters_are_counted_as_torch_counts_them(config: DecoderConfig) -> None:
    model = Decoder(config)
    assert counts.parameters(config) == sum(parameter.numel() for parameter in model.parameters())
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name)
    tied = config.vocab_size * config.d_model if config.tie_embeddings else 0
    assert counts.matmul_parameters(config) == matrices + tied


def test_a_scalar_model_takes_over_a_trunk() -> None:
    decoder, scalar = Decoder(QWEN3), ScalarModel(QWEN3)
    decoder.init_weights(3)
    scalar.start_from(decoder, seed=1)
    for key, value in decoder.model.state_dict().items():
        assert value.equal(scalar.decoder.model.state_dict()[key])
    assert "lm_head" not in "".join(scalar.state_dict())
