"""The induction circuit as first weights: it copies before any training, and is an ordinary checkpoint."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from groundup.core.errors import GroundupError
from groundup.model.architectures.gpt2 import Gpt2
from groundup.model.attention import AttentionKernel, attend_fused, document_mask
from groundup.model.checkpoint import load_decoder, save_model
from groundup.model.config import DecoderConfig, RopeScaling
from groundup.model.decoder import Decoder
from groundup.model.hf_config import ARCHITECTURES
from groundup.model.induction import held_blocks, induction_accuracy, repeated_tokens
from groundup.train.pretrain import Pretrain

VOCABULARY, TIME = 1000, 160
CARRIERS = [name for name in ARCHITECTURES.names() if name != "gpt2"]
YARN = RopeScaling(kind="yarn", factor=4, original_max_seq_len=64)


def with_circuit(architecture: str, depth: int = 3, **sizes: object) -> Decoder:
    plugin = ARCHITECTURES.load(architecture)(**{"d_model": 256, "n_heads": 4, "d_ff": 256} | sizes)
    model = Decoder(replace(plugin.config(depth, VOCABULARY, TIME), induction=True))
    model.init_weights(0)
    return model


def accuracy(model: Decoder, length: int = 64) -> float:
    return induction_accuracy(model, repeated_tokens(VOCABULARY - 8, VOCABULARY - 8, length, 8))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("architecture", CARRIERS)
def test_untrained_it_repeats_random_tokens(architecture: str, tied: bool) -> None:
    assert accuracy(with_circuit(architecture, tie_embeddings=tied)) >= 0.9


@pytest.mark.parametrize(
    "changes",
    [
        {"n_kv_heads": 2},
        {"n_kv_heads": 1},
        {"depth": 2},
        {"depth": 6, "d_model": 384, "n_heads": 6},
        {"rope_theta": 500_000.0},
        {"rope_scaling": YARN},
        {"value_embeddings": True, "residual_scalars": True, "embedding_scalars": True},
        {"zero_init": True},
    ],
    ids=str,
)
def test_it_does_so_in_other_shapes_and_with_the_fast_switches(changes: dict[str, object]) -> None:
    assert accuracy(with_circuit("qwen3", **changes)) >= 0.9  # type: ignore[arg-type]


def test_without_the_circuit_nothing_is_repeated() -> None:
    model = Decoder(replace(with_circuit("qwen3").config, induction=False))
    model.init_weights(0)
    assert accuracy(model) < 0.02


def test_its_heads_look_back_by_one_and_find_the_position_after_an_earlier_occurrence() -> None:
    model, patterns = with_circuit("llama", n_kv_heads=2, rope_theta=20_000.0), []

    def attend_and_record(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        scores = (
            q @ k.repeat_interleave(q.shape[1] // k.shape[1], dim=1).transpose(2, 3) / math.sqrt(q.shape[-1])
        )
        patterns.append(scores.masked_fill(~mask, -math.inf).softmax(dim=-1)[0])
        return attend_fused(q, k, v, mask)

    model.set_attention_kernel(AttentionKernel("recording", document_mask, attend_and_record))
    with torch.no_grad():
        model(repeated_tokens(VOCABULARY - 8, VOCABULARY - 8, 60, 1))
    layer_0, layer_1 = patterns[:2]
    previous, own = layer_0[0].diagonal(offset=-1), layer_0[1].diagonal()
    assert min(previous[1:].mean(), own.mean()) > 0.9
    # Position 60 + n has the token of position n, whose successor is at n + 1.
    found = torch.stack([layer_1[0, 60 + n, n + 1] for n in range(1, 60)])
    assert (found > 0.5).float().mean() > 0.9


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "phi3", "olmo2", "qwen3_moe"])
def test_exported_it_has_the_logits_of_transformers_and_the_config_keeps_the_circuit(
    architecture: str, tmp_path: Path
) -> None:
    model = with_circuit(architecture)
    save_model(tmp_path, model)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert type(theirs).__module__.startswith("transformers.")
    ids = repeated_tokens(VOCABULARY - 8, VOCABULARY - 8, 48, 4)
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, model(ids), atol=1e-4, rtol=1e-4)
    assert load_decoder(tmp_path).config == replace(model.config, zero_init=False)


def test_only_the_circuit_differs_from_the_usual_first_weights() -> None:
    model = with_circuit("qwen3")
    usual = Decoder(replace(model.config, induction=False))
    usual.init_weights(0)
    expected = usual.state_dict()
    for name, value in model.named_parameters():
        blocks = held_blocks(model.config, name)
        free = torch.ones_like(value, dtype=torch.bool)
        for block in blocks:
            free.narrow(block.axis, block.start, block.stop - block.start).fill_(False)
        if name == "lm_head.weight":  # a copy of the embedding
            torch.testing.assert_close(value, model.model.embed_tokens.weight, rtol=0, atol=0)
        else:
            assert torch.equal(value[free], expected[name][free]), name


def test_ranks_that_make_one_parameter_alone_make_the_same() -> None:
    model = with_circuit("qwen3")
    with torch.device("meta"):
        blank = Decoder(model.config)
    for name, value in model.named_parameters():
        assert torch.equal(blank.init_tensor(name, value.shape, 0), value)


@pytest.mark.parametrize(
    ("recipe", "problem"),
    [
        ({"architecture": Gpt2()}, "gpt2 has learned positions"),
        ({"depth": 1}, "depth = 1"),
        ({"architecture": {"use": "qwen3", "d_model": 64, "n_heads": 1}}, "n_heads = 1"),
        ({"architecture": {"use": "qwen3", "d_model": 64, "n_heads": 2}}, "d_model = 64 with head_dim = 32"),
    ],
    ids=str,
)
def test_a_decoder_that_cannot_carry_it_is_refused(recipe: dict[str, object], problem: str) -> None:
    with pytest.raises((GroundupError, ValueError), match=problem):
        Pretrain.model_validate({"init": "induction"} | recipe)


def test_a_start_checkpoint_has_its_own_weights() -> None:
    with pytest.raises(ValueError, match="no effect with start"):
        Pretrain(init="induction", start="somewhere")


def test_the_config_says_so_in_json() -> None:
    config = with_circuit("qwen3").config
    assert DecoderConfig.from_json(config.to_json()) == config
