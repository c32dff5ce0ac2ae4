"""Shapes: the rules of the one dial, and config.json both ways."""

import json
from dataclasses import replace
from typing import Any

import pytest
from decoders import FAST, GPT2, LLAMA, OLMO3, PORTABLE, QWEN3, QWEN3_MOE, SCALINGS

from groundup.model import flops
from groundup.model.architectures.gpt2 import Gpt2
from groundup.model.architectures.llama import Llama
from groundup.model.architectures.olmo3 import Olmo3
from groundup.model.architectures.qwen3 import Qwen3
from groundup.model.architectures.qwen3_moe import Qwen3MoE
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.model.hf_config import config_from_hf, config_to_hf
from groundup.model.value_head import ValueModel


@pytest.mark.parametrize("name", PORTABLE)
def test_config_json_and_back(name: str) -> None:
    assert config_from_hf(config_to_hf(PORTABLE[name])) == PORTABLE[name]


@pytest.mark.parametrize("name", [*PORTABLE, *FAST])
def test_a_config_survives_json(name: str) -> None:
    config = (PORTABLE | FAST)[name]
    assert DecoderConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("config", "change", "said"),
    [
        (LLAMA, {"model_type": "mamba"}, "model_type = 'mamba'; supported are gpt2, llama, mistral, olmo2"),
        (LLAMA, {"attention_bias": True}, "attention_bias = True"),
        (LLAMA, {"mlp_bias": True}, "mlp_bias = True"),
        (LLAMA, {"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        (LLAMA, {"partial_rotary_factor": 0.5}, r"partial_rotary_factor = 0\.5"),
        (LLAMA, {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25}}, "0.25"),
        (LLAMA, {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "'dynamic'.*cached keys"),
        (LLAMA, {"rope_scaling": {"type": "su", "factor": 2.0}}, "rope_type = 'su'"),
        (LLAMA, {"rope_parameters": {"rope_type": "proportional"}}, "rope_type = 'proportional'"),
        (LLAMA, {"final_logit_softcapping": 30.0}, r"final_logit_softcapping = 30\.0"),
        (LLAMA, {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        (LLAMA, {"residual_multiplier": 0.22}, "residual_multiplier"),
        (LLAMA, {"clip_qkv": 8.0}, "clip_qkv"),
        (LLAMA, {"use_sliding_window": True, "sliding_window": 8}, "use_sliding_window = True"),
        (LLAMA, {"layer_types": ["sliding_attention"] * 3}, "layer_types"),
        (LLAMA, {"quantization_config": {"bits": 4}}, "quantization_config"),
        (QWEN3, {"attention_bias": True}, "attention_bias = True"),
        (QWEN3, {"use_sliding_window": True, "layer_types": ["chunked_attention"] * 3}, "'chunked_attention'"),
        (QWEN3, {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1,
                 "layer_types": None, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "rotary scaling"),
        (OLMO3, {"rope_parameters": {"full_attention": {"rope_theta": 5e5, "rope_type": "default"},
                                     "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"}}}, "only the"),
        (OLMO3, {"sliding_window": None}, "no sliding_window"),
        (QWEN3_MOE, {"mlp_only_layers": [0]}, r"mlp_only_layers = \[0\]"),
        (QWEN3_MOE, {"decoder_sparse_step": 2}, "decoder_sparse_step = 2"),
        (QWEN3_MOE, {"use_sliding_window": True}, "use_sliding_window"),
        (GPT2, {"activation_function": "relu"}, "activation_function = 'relu'"),
        (GPT2, {"scale_attn_weights": False}, "scale_attn_weights = False"),
        (GPT2, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        (GPT2, {"add_cross_attention": True}, "add_cross_attention"),
    ],
)  # fmt: skip
def test_what_this_decoder_does_not_compute_is_refused(
    config: DecoderConfig, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        config_from_hf(config_to_hf(config) | change)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (replace(LLAMA, windows=(8, 8, 8)), "windows = .* cannot be expressed in the config.json of llama"),
        (replace(LLAMA, qk_norm="head"), "qk_norm"),
        (replace(QWEN3, biases=True), "biases = True"),
        (replace(QWEN3, norm="layer"), "norm = 'layer'"),
        (
            replace(QWEN3, windows=(8, 8, 0), rope_scaling=SCALINGS["linear"]),
            "rotary scaling is only supported",
        ),
        (replace(OLMO3, windows=(8, 4, 8, 0)), "layers have 4 and 8"),
        (replace(GPT2, norm_at="output"), "norm_at"),
    ],
)
def test_what_a_published_form_has_no_place_for_is_not_lost_in_silence(
    config: DecoderConfig, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        config_to_hf(config)


def test_published_configs_are_read_as_their_makers_wrote_them() -> None:
    olmo3 = {"model_type": "olmo3", "vocab_size": 100278, "hidden_size": 64, "num_hidden_layers": 8,
             "num_attention_heads": 4, "intermediate_size": 128, "hidden_act": "silu", "rms_norm_eps": 1e-6,
             "max_position_embeddings": 65536, "rope_theta": 500000, "sliding_window": 4096,
             "attention_bias": False, "attention_dropout": 0.0, "initializer_range": 0.02,
             "rope_scaling": {"attention_factor": 1.2079441541679836, "beta_fast": 32, "beta_slow": 1,
                              "factor": 8.0, "original_max_position_embeddings": 8192,
                              "rope_type": "yarn"}}  # fmt: skip
    found = config_from_hf(olmo3)
    assert found.windows == (4096, 4096, 4096, 0) * 2
    assert found.rope_scaling is not None and found.rope_scaling.attention_factor == 1.2079441541679836
    assert (found.norm_at, found.qk_norm, found.rope_theta) == ("output", "width", 5e5)
    qwen3 = {"model_type": "qwen3", "vocab_size": 151936, "hidden_size": 64, "num_hidden_layers": 2,
             "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 128, "rms_norm_eps": 1e-6,
             "max_position_embeddings": 40960, "rope_theta": 1000000, "rope_scaling": None,
             "use_sliding_window": False, "sliding_window": None, "max_window_layers": 36,
             "tie_word_embeddings": True}  # fmt: skip
    assert (config_from_hf(qwen3).head_dim, config_from_hf(qwen3).tie_embeddings) == (128, True)
    gpt2 = {"model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_ctx": 1024,
            "n_positions": 1024, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-05,
            "attn_pdrop": 0.1, "summary_type": "cls_index"}  # fmt: skip
    assert flops.parameters(config_from_hf(gpt2)) == 124_439_808


def test_a_published_config_without_our_extra_keys_is_read() -> None:
    said = {"model_type": "llama", "vocab_size": 32000, "hidden_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "intermediate_size": 128, "rms_norm_eps": 1e-5,
            "rope_theta": 5e5, "max_position_embeddings": 2048}  # fmt: skip
    config = config_from_hf(said)
    assert (config.n_kv_heads, config.head_dim, config.rope_theta) == (4, 16, 5e5)


def test_width_and_heads_follow_from_depth() -> None:
    config = Qwen3().config(depth=6, vocab_size=4096, max_seq_len=512)
    assert (config.d_model, config.n_heads, config.head_dim, config.d_ff) == (384, 6, 64, 1024)
    assert Llama().config(6, 4096, 512).qk_norm == "none"


def test_every_part_makes_a_decoder_of_its_shape() -> None:
    olmo3 = Olmo3().config(8, 96, 512)
    assert olmo3.windows == (256, 256, 256, 0) * 2 and Olmo3(window=7).config(1, 96, 512).windows == (7,)
    gpt2 = Gpt2().config(2, 96, 512)
    assert (gpt2.d_ff, gpt2.positions, gpt2.biases, gpt2.tie_embeddings) == (512, "learned", True, True)
    moe = Qwen3MoE(n_experts=16, n_experts_per_token=4, n_shared_experts=1).config(4, 96, 512)
    dense = Qwen3().config(4, 96, 512)
    used = 5 * moe.moe.d_expert if moe.moe else 0
    assert dense.d_ff <= used < dense.d_ff + 5 * 8
    with pytest.raises(ValueError, match="relu2"):
        Qwen3MoE(relu2=True).config(4, 96, 512)
    for config in (olmo3, gpt2, Qwen3MoE().config(4, 96, 512)):
        assert config_from_hf(config_to_hf(config)) == config


def test_heads_that_do_not_divide_the_width_are_refused_with_a_way_out() -> None:
    with pytest.raises(ValueError, match=r"n_heads = 5 does not divide d_model = 256.*Try n_heads = 4"):
        Qwen3(n_heads=5).config(depth=4, vocab_size=64, max_seq_len=64)
    with pytest.raises(ValueError, match="n_kv_heads = 3 does not divide n_heads = 4"):
        Qwen3(n_kv_heads=3).config(depth=4, vocab_size=64, max_seq_len=64)


@pytest.mark.parametrize("config", [QWEN3, LLAMA, GPT2, OLMO3, replace(QWEN3, n_kv_heads=1, n_layers=1)])
def test_parameters_are_counted_as_torch_counts_them(config: DecoderConfig) -> None:
    model = Decoder(config)
    assert flops.parameters(config) == sum(parameter.numel() for parameter in model.parameters())
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name)
    tied = config.vocab_size * config.d_model if config.tie_embeddings else 0
    assert flops.matmul_parameters(config) == matrices + tied


def test_a_scalar_model_takes_over_a_trunk() -> None:
    decoder, scalar = Decoder(QWEN3), ValueModel(QWEN3)
    decoder.init_weights(3)
    scalar.init_from_decoder(decoder, seed=1)
    for key, value in decoder.model.state_dict().items():
        assert value.equal(scalar.decoder.model.state_dict()[key])
    assert "lm_head" not in "".join(scalar.state_dict())
