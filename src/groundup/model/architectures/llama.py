"""Llama: like Qwen3 without QK-norm.

https://arxiv.org/abs/2302.13971
"""

from dataclasses import replace
from typing import Any, ClassVar

from groundup.model.architectures import Dense
from groundup.model.architectures._hf_config import FULL
from groundup.model.config import DecoderConfig


class Llama(Dense):
    """Pre-norm decoder with rotary positions, GQA and SwiGLU. Sizes of 0 are derived from the depth."""

    model_type: ClassVar[str] = "llama"
    hf_class: ClassVar[str] = "LlamaForCausalLM"
    gguf_arch: ClassVar[str] = "llama"
    supported_values: ClassVar[dict[str, tuple[Any, ...]]] = {"use_sliding_window": (False,)}

    def config(self, depth: int, vocab_size: int, max_seq_len: int) -> DecoderConfig:
        """The DecoderConfig for this depth, by the rules of `Dense`."""
        return replace(super().config(depth, vocab_size, max_seq_len), architecture="llama", qk_norm="none")

    @classmethod
    def from_hf(cls, hf_config: dict[str, Any]) -> DecoderConfig:
        """The DecoderConfig of a config.json. Raises ValueError naming an unsupported key and its value."""
        if set(hf_config.get("layer_types") or [FULL]) != {FULL}:
            raise ValueError(
                "config.json has layer_types with sliding windows, which LlamaForCausalLM does not compute"
            )
        return replace(super().from_hf(hf_config), qk_norm="none")
