"""The OLMo 3 shape: norms after attention and feed-forward, three of four layers see only a window.

https://arxiv.org/abs/2512.13961; norms behind the blocks and on all queries and keys at once as in OLMo 2,
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
    one_window,
    read_scaling,
    scaling_to_hf,
    windows_from_hf,
)
from groundup.model.config import DecoderConfig, RopeScaling

PERIOD = 4
"""Every so many layers one sees everything."""


class Olmo3(Dense):
    """Post-norm decoder with windows on three of four layers, rotary positions and SwiGLU. 0 = from depth."""

    model_type: ClassVar[str] = "olmo3"
    published_class: ClassVar[str] = "Olmo3ForCausalLM"
    defaults: ClassVar[dict[str, Any]] = {"rms_norm_eps": 1e-5, "rope_theta": 500_000.0}

    window: int = Field(
        default=0, ge=0, description="positions that three of four layers look back; 0 = half the context"
    )

    def config(self, depth: int, vocab_size: int, max_seq_len: int) -> DecoderConfig:
        """The decoder of this depth, by the rules of `Dense`. Rows no longer than the window aren't cut by it."""
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
        """config.json; every kind of layer has rotary positions of its own in it."""
        full = scaling_to_hf(config.rope_scaling, config.rope_theta)
        return super().to_hf(config) | {
            "sliding_window": one_window(config.windows),
            "layer_types": layer_types(config.windows, config.n_layers),
            "rope_parameters": {FULL: full, SLIDING: scaling_to_hf(None, config.rope_theta)},
        }

    @classmethod
    def from_hf(cls, said: dict[str, Any]) -> DecoderConfig:
        """From a published config.json."""
        config = super().from_hf(said)
        types = said.get("layer_types") or [
            FULL if (layer + 1) % PERIOD == 0 else SLIDING for layer in range(config.n_layers)
        ]
        windows = windows_from_hf(types, said.get("sliding_window", 4096))
        return replace(config, norm_at="output", qk_norm="width", windows=windows)

    @classmethod
    def rope_from_hf(cls, said: dict[str, Any]) -> tuple[float, RopeScaling | None]:
        """Of the layers without a window. Raises ValueError where the others have another base or are stretched."""
        tables = said.get("rope_parameters") or {}
        if FULL not in tables:
            return super().rope_from_hf(said)
        theta, scaling = read_scaling(tables[FULL] | (said.get("rope_scaling") or {}), said)
        sliding = read_scaling(tables.get(SLIDING) or {}, said)
        if sliding != (theta, None):
            raise ValueError(
                f"config.json has rope_parameters.{SLIDING} = {tables[SLIDING]}; computed here is only the same "
                f"base as in {FULL}, without scaling"
            )
        return theta, scaling
