"""Mistral: Llama with one sliding window on all layers, or none.

https://arxiv.org/abs/2310.06825
"""

from dataclasses import replace
from typing import Any, ClassVar

from groundup.model.architectures import Dense
from groundup.model.architectures._hf_config import single_window
from groundup.model.config import DecoderConfig


class Mistral(Dense):
    """Pre-norm decoder with rotary positions, GQA and SwiGLU. Sizes of 0 are derived from the depth."""

    model_type: ClassVar[str] = "mistral"
    hf_class: ClassVar[str] = "MistralForCausalLM"
    gguf_arch: ClassVar[str] = "llama"
    hf_defaults: ClassVar[dict[str, Any]] = Dense.hf_defaults | {
        "num_key_value_heads": 8,
        "sliding_window": 4096,
    }

    def config(self, depth: int, vocab_size: int, max_seq_len: int) -> DecoderConfig:
        """The DecoderConfig for this depth, by the rules of `Dense`; without a window, as in later versions."""
        return replace(super().config(depth, vocab_size, max_seq_len), architecture="mistral", qk_norm="none")

    @classmethod
    def to_hf(cls, config: DecoderConfig) -> dict[str, Any]:
        """The config.json of MistralForCausalLM."""
        return super().to_hf(config) | {"sliding_window": single_window(config.windows)}

    @classmethod
    def from_hf(cls, hf_config: dict[str, Any]) -> DecoderConfig:
        """The DecoderConfig of a config.json. Raises ValueError naming an unsupported key and its value."""
        config = super().from_hf(hf_config)
        window = hf_config.get("sliding_window", cls.hf_defaults["sliding_window"])
        windows = (window,) * config.n_layers if window else ()
        if windows and config.rope_scaling is not None:
            raise ValueError("config.json has sliding_window and rope_scaling: supported is one of them")
        return replace(config, qk_norm="none", windows=windows)
