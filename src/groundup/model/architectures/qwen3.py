"""Qwen3: the default architecture, since common runtimes load it and QK-norm stabilises training.

https://arxiv.org/abs/2505.09388
"""

from dataclasses import replace
from typing import Any, ClassVar

from groundup.model.architectures import Dense
from groundup.model.architectures._hf_config import FULL, SLIDING, layer_types, single_window, windows_from_hf
from groundup.model.config import DecoderConfig


class Qwen3(Dense):
    """Pre-norm decoder with rotary positions, GQA, SwiGLU and QK-norm. Sizes of 0 are derived from the depth."""

    model_type: ClassVar[str] = "qwen3"
    hf_class: ClassVar[str] = "Qwen3ForCausalLM"
    gguf_arch: ClassVar[str] = "qwen3"
    hf_defaults: ClassVar[dict[str, Any]] = Dense.hf_defaults | {"head_dim": 128, "num_key_value_heads": 32}

    @classmethod
    def to_hf(cls, config: DecoderConfig) -> dict[str, Any]:
        """The config.json of Qwen3ForCausalLM, with the layers that have a sliding window."""
        window = single_window(config.windows)
        return super().to_hf(config) | {
            "use_sliding_window": window is not None,
            "sliding_window": window,
            "max_window_layers": config.n_layers,
            "layer_types": layer_types(config.windows, config.n_layers),
        }

    @classmethod
    def from_hf(cls, hf_config: dict[str, Any]) -> DecoderConfig:
        """The DecoderConfig of a config.json. Raises ValueError for rotary scaling together with sliding windows."""
        config = super().from_hf(hf_config)
        if not hf_config.get("use_sliding_window"):
            return config
        first = hf_config.get("max_window_layers", 28)
        types = hf_config.get("layer_types") or [
            SLIDING if layer >= first else FULL for layer in range(config.n_layers)
        ]
        windows = windows_from_hf(types, hf_config.get("sliding_window", 4096))
        if windows and config.rope_scaling is not None:
            raise ValueError(
                "config.json has use_sliding_window = true and rope_scaling; rotary scaling is only supported on "
                "layers without a window"
            )
        return replace(config, windows=windows)
