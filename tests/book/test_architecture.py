"""Parameters counted from a config, against what is published of models in these shapes."""

from typing import Any

import pytest

from groundup.book.architecture import architecture_svg, parts_of, shape_of

QWEN3_06B = {
    "model_type": "qwen3", "vocab_size": 151_936, "hidden_size": 1024, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 3072,
    "tie_word_embeddings": True,
}  # fmt: skip
LLAMA3_8B = {
    "model_type": "llama", "vocab_size": 128_256, "hidden_size": 4096, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14_336,
}  # fmt: skip


@pytest.mark.parametrize(("config", "published"), [(QWEN3_06B, 596_049_920), (LLAMA3_8B, 8_030_261_248)])
def test_the_parts_add_up_to_the_published_count(config: dict[str, Any], published: int) -> None:
    assert sum(part.parameters for part in parts_of(shape_of(config))) == published


def test_the_drawing_has_a_square_for_every_head() -> None:
    shape = shape_of(QWEN3_06B)
    picture = architecture_svg(shape)
    assert "16 query heads of 128" in picture
    assert "8 key and value heads" in picture
    assert "× 28 blocks" in picture
    assert (
        picture.count("<rect")
        == architecture_svg(shape_of(QWEN3_06B | {"num_attention_heads": 8})).count("<rect") + 8
    )


def test_many_heads_still_fit_the_page() -> None:
    picture = architecture_svg(shape_of(LLAMA3_8B | {"num_attention_heads": 128}))
    assert "(24 drawn)" in picture
