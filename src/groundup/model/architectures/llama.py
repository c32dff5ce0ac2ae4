"""The Llama shape: as Qwen3, without the norms on queries and keys.

https://arxiv.org/abs/2302.13971
"""

from dataclasses import replace
from typing import Any, ClassVar

from groundup.model.architectures import Dense
from groundup.model.architectures._hf_config import FULL
from groundup.model.config import DecoderConfig


class Llama(Dense):
    """Pre-norm decoder with rotary positions, grouped-query attention and SwiGLU. 0 = from depth."""

    model_type: ClassVar[str] = "llama"
    published_class: ClassVar[str] = "LlamaForCausalLM"
    not_computed: ClassVar[dict[str, tuple[Any, ...]]] = {"use_sliding_window": (False,)}

    def config(self, depth: int, vocab_size: int, max_seq_len: int) -> DecoderConfig:
        """The decoder of this depth, by the rules of `Dense`."""
        return replace(super().config(depth, vocab_size, max_seq_len), architecture="llama", qk_norm="none")

    @classmethod
    def from_hf(cls, said: dict[str, Any]) -> DecoderConfig:
        """From a published config.json."""
        if set(said.get("layer_types") or [FULL]) != {FULL}:
            raise ValueError("config.json has layer_types with windows, which no Llama computes")
        return replace(super().from_hf(said), qk_norm="none")
