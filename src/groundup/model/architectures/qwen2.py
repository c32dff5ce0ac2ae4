"""Qwen2: Llama with biases on queries, keys and values.

https://arxiv.org/abs/2407.10671
"""

from dataclasses import replace
from typing import Any, ClassVar

from groundup.model.architectures import Dense
from groundup.model.config import DecoderConfig


class Qwen2(Dense):
    """Pre-norm decoder with rotary positions, GQA, SwiGLU and QKV biases. Sizes of 0 are derived from the depth."""

    model_type: ClassVar[str] = "qwen2"
    hf_class: ClassVar[str] = "Qwen2ForCausalLM"
    gguf_arch: ClassVar[str] = "qwen2"
    hf_defaults: ClassVar[dict[str, Any]] = Dense.hf_defaults | {"num_key_value_heads": 32}
    supported_values: ClassVar[dict[str, tuple[Any, ...]]] = {"use_sliding_window": (False,)}

    def config(self, depth: int, vocab_size: int, max_seq_len: int) -> DecoderConfig:
        """The DecoderConfig for this depth, by the rules of `Dense`."""
        dense = super().config(depth, vocab_size, max_seq_len)
        return replace(dense, architecture="qwen2", qk_norm="none", biases="qkv")

    @classmethod
    def from_hf(cls, hf_config: dict[str, Any]) -> DecoderConfig:
        """The DecoderConfig of a config.json. Raises ValueError naming an unsupported key and its value."""
        if set(hf_config.get("layer_types") or ["full_attention"]) != {"full_attention"}:
            raise ValueError(
                "config.json has layer_types with sliding windows, which are not supported in Qwen2"
            )
        return replace(super().from_hf(hf_config), qk_norm="none", biases="qkv")
