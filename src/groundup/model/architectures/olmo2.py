"""OLMo 2: norms after attention and feed-forward, QK-norm over the whole width.

https://arxiv.org/abs/2501.00656
"""

from dataclasses import replace
from typing import Any, ClassVar

from groundup.model.architectures import Dense
from groundup.model.config import DecoderConfig


class Olmo2(Dense):
    """Post-norm decoder with rotary positions and SwiGLU. Sizes of 0 are derived from the depth."""

    model_type: ClassVar[str] = "olmo2"
    hf_class: ClassVar[str] = "Olmo2ForCausalLM"
    gguf_arch: ClassVar[str] = "olmo2"
    hf_defaults: ClassVar[dict[str, Any]] = {"rms_norm_eps": 1e-5, "rope_theta": 500_000.0}

    def config(self, depth: int, vocab_size: int, max_seq_len: int) -> DecoderConfig:
        """The DecoderConfig for this depth, by the rules of `Dense`."""
        dense = super().config(depth, vocab_size, max_seq_len)
        return replace(dense, architecture="olmo2", norm_at="output", qk_norm="width")

    @classmethod
    def from_hf(cls, hf_config: dict[str, Any]) -> DecoderConfig:
        """The DecoderConfig of a config.json. Raises ValueError naming an unsupported key and its value."""
        return replace(super().from_hf(hf_config), norm_at="output", qk_norm="width")
