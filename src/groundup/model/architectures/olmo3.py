"""OLMo 3: norms after attention and feed-forward, a sliding window on three of four layers.

https://arxiv.org/abs/2512.13961; post-norm and QK-norm over the whole width as in OLMo 2,
https://arxiv.org/abs/2501.00656.
"""

from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field

from groundup.model.architectures import Dense
from groundup.model.architectures._hf_config import (
    FULL,
    SLIDING,
    layer_types,
    scaling_from_table,
    scaling_to_hf,
    single_window,
    windows_from_hf,
)
from groundup.model.config import DecoderConfig, RopeScaling

PERIOD = 4
"""Every fourth layer has full attention."""


class Olmo3(Dense):
    """Post-norm decoder with sliding windows, rotary positions and SwiGLU. Sizes of 0 are derived from the depth."""

    model_type: ClassVar[str] = "olmo3"
    hf_class: ClassVar[str] = "Olmo3ForCausalLM"
    gguf_arch: ClassVar[str] = "olmo2"
    hf_defaults: ClassVar[dict[str, Any]] = {"rms_norm_eps": 1e-5, "rope_theta": 500_000.0}

    window: int = Field(
        default=0,
        ge=0,
        description="sliding window of three of four layers, in positions; 0 = half of the context",
    )

    def config(self, depth: int, vocab_size: int, max_seq_len: int) -> DecoderConfig:
        """The DecoderConfig for this depth, by the rules of `Dense`."""
        window = self.window or max(1, max_seq_len // 2)
        return replace(
            super().config(depth, vocab_size, max_seq_len),
            architecture="olmo3",
            norm_at="output",
            qk_norm="width",
            windows=tuple(0 if (layer + 1) % PERIOD == 0 else window for layer in range(depth)),
        )

    @classmethod
    def to_hf(cls, config: DecoderConfig) -> dict[str, Any]:
        """The config.json of Olmo3ForCausalLM, with rope_parameters per kind of layer."""
        full = scaling_to_hf(config.rope_scaling, config.rope_theta)
        return super().to_hf(config) | {
            "sliding_window": single_window(config.windows),
            "layer_types": layer_types(config.windows, config.n_layers),
            "rope_parameters": {FULL: full, SLIDING: scaling_to_hf(None, config.rope_theta)},
        }

    @classmethod
    def from_hf(cls, hf_config: dict[str, Any]) -> DecoderConfig:
        """The DecoderConfig of a config.json. Raises ValueError naming an unsupported key and its value."""
        config = super().from_hf(hf_config)
        types = hf_config.get("layer_types") or [
            FULL if (layer + 1) % PERIOD == 0 else SLIDING for layer in range(config.n_layers)
        ]
        windows = windows_from_hf(types, hf_config.get("sliding_window", 4096))
        return replace(config, norm_at="output", qk_norm="width", windows=windows)

    @classmethod
    def rope_from_hf(cls, hf_config: dict[str, Any]) -> tuple[float, RopeScaling | None]:
        """Rotary base and scaling of the layers without a window.

        Raises ValueError if the layers with a window have another base or a scaling.
        """
        tables = hf_config.get("rope_parameters") or {}
        if FULL not in tables:
            return super().rope_from_hf(hf_config)
        theta, scaling = scaling_from_table(tables[FULL] | (hf_config.get("rope_scaling") or {}), hf_config)
        sliding = scaling_from_table(tables.get(SLIDING) or {}, hf_config)
        if sliding != (theta, None):
            raise ValueError(
                f"config.json has rope_parameters.{SLIDING} = {tables[SLIDING]}; only the "
                f"base of {FULL} without scaling is supported"
            )
        return theta, scaling
