"""Parameters counted from a config, against decoders and the published sizes of models of the same shape."""

from dataclasses import replace

import pytest

from groundup.book.architecture import architecture_svg, parameter_blocks
from groundup.model.config import DecoderConfig
from groundup.model.flops import parameters

QWEN3_06B = DecoderConfig(
    vocab_size=151_936, d_model=1024, n_layers=28, n_heads=16, n_kv_heads=8, head_dim=128, d_ff=3072,
    tie_embeddings=True,
)  # fmt: skip
LLAMA3_8B = DecoderConfig(
    vocab_size=128_256, d_model=4096, n_layers=32, n_heads=32, n_kv_heads=8, head_dim=128, d_ff=14_336,
    architecture="llama", qk_norm="none",
)  # fmt: skip
SMALL = replace(
    QWEN3_06B, vocab_size=300, d_model=48, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=12, d_ff=80
)
SHAPES = {
    "qwen3": SMALL,
    "untied": replace(SMALL, tie_embeddings=False),
    "olmo3": replace(SMALL, norm_at="output", qk_norm="width"),
    "gpt2": replace(
        SMALL, norm="layer", positions="learned", activation="gelu", biases=True, qk_norm="none", n_kv_heads=4
    ),
    "fast": replace(
        SMALL, value_embeddings=True, residual_scalars=True, embedding_scalars=True, activation="relu2"
    ),
}


@pytest.mark.parametrize(("config", "published"), [(QWEN3_06B, 596_049_920), (LLAMA3_8B, 8_030_261_248)])
def test_the_blocks_add_up_to_the_published_count(config: DecoderConfig, published: int) -> None:
    assert sum(block.parameters for block in parameter_blocks(config)) == published == parameters(config)


@pytest.mark.parametrize("name", SHAPES)
def test_the_blocks_add_up_to_the_decoders_parameters(name: str) -> None:
    assert sum(block.parameters for block in parameter_blocks(SHAPES[name])) == parameters(SHAPES[name])


def test_the_drawing_has_a_square_for_every_head() -> None:
    picture = architecture_svg(QWEN3_06B)
    assert "16 query heads of 128" in picture
    assert "8 key and value heads" in picture
    assert "× 28 blocks" in picture
    assert picture.count("<rect") == architecture_svg(replace(QWEN3_06B, n_heads=8)).count("<rect") + 8


def test_many_heads_still_fit_the_page() -> None:
    picture = architecture_svg(replace(LLAMA3_8B, n_heads=128))
    assert "(24 drawn)" in picture
