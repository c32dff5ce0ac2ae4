"""The Qwen3 shape: the default, since every common runtime loads it and its norms keep training steady.

https://arxiv.org/abs/2505.09388
"""

from dataclasses import replace
from typing import Any, ClassVar

from groundup.model.architectures import Dense
from groundup.model.architectures._hf_config import FULL, SLIDING, layer_types, one_window, windows_from_hf
from groundup.model.config import DecoderConfig


class Qwen3(Dense):
    """Pre-norm decoder with rotary positions, grouped-query attention and SwiGLU, and QK-norm. 0 = from depth."""

    model_type: ClassVar[str] = "qwen3"
    published_class: ClassVar[str] = "Qwen3ForCausalLM"
    defaults: ClassVar[dict[str, Any]] = Dense.defaults | {"head_dim": 128, "num_key_value_heads": 32}

    @classmethod
    def to_hf(cls, config: DecoderConfig) -> dict[str, Any]:
        """config.json, with the layers that have a window."""
        window = one_window(config.windows)
        return super().to_hf(config) | {
            "use_sliding_window": window is not None,
            "sliding_window": window,
            "max_window_layers": config.n_layers,
            "layer_types": layer_types(config.windows, config.n_layers),
        }

    @classmethod
    def from_hf(cls, said: dict[str, Any]) -> DecoderConfig:
        """From a published config.json. Raises ValueError where stretched angles meet windows."""
        config = super().from_hf(said)
        if not said.get("use_sliding_window"):
            return config
        first = said.get("max_window_layers", 28)
        types = said.get("layer_types") or [
            SLIDING if layer >= first else FULL for layer in range(config.n_layers)
        ]
        windows = windows_from_hf(types, said.get("sliding_window", 4096))
        if windows and config.rope_scaling is not None:
            raise ValueError(
                "config.json has use_sliding_window = true and stretched rotary positions, which here are only "
                "stretched on layers without a window"
            )
        return replace(config, windows=windows)
