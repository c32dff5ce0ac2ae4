"""SmolLM3: Llama without rotary positions on every fourth layer (NoPE).

https://huggingface.co/blog/smollm3; NoPE: https://arxiv.org/abs/2501.18795
"""

from dataclasses import replace
from typing import Any, ClassVar

from groundup.model.architectures import Dense
from groundup.model.config import DecoderConfig

PERIOD = 4
"""Every fourth layer has no rotary positions."""


class SmolLM3(Dense):
    """Pre-norm decoder with rotary positions on three of four layers. Sizes of 0 are derived from the depth."""

    model_type: ClassVar[str] = "smollm3"
    hf_class: ClassVar[str] = "SmolLM3ForCausalLM"
    gguf_arch: ClassVar[str] = "smollm3"
    hf_defaults: ClassVar[dict[str, Any]] = {
        "rms_norm_eps": 1e-6,
        "rope_theta": 2_000_000.0,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
    }
    supported_values: ClassVar[dict[str, tuple[Any, ...]]] = {"use_sliding_window": (False,)}

    def config(self, depth: int, vocab_size: int, max_seq_len: int) -> DecoderConfig:
        """The DecoderConfig for this depth, by the rules of `Dense`."""
        dense = super().config(depth, vocab_size, max_seq_len)
        return replace(dense, architecture="smollm3", qk_norm="none", rope_layers=_pattern(depth, PERIOD))

    @classmethod
    def to_hf(cls, config: DecoderConfig) -> dict[str, Any]:
        """The config.json of SmolLM3ForCausalLM."""
        layers = config.rope_layers or (True,) * config.n_layers
        return super().to_hf(config) | {"no_rope_layers": [int(has_rope) for has_rope in layers]}

    @classmethod
    def from_hf(cls, hf_config: dict[str, Any]) -> DecoderConfig:
        """The DecoderConfig of a config.json. Raises ValueError naming an unsupported key and its value."""
        # The name misleads: 1 is a layer with rotary positions.
        flags = hf_config.get("no_rope_layers")
        config = super().from_hf({key: value for key, value in hf_config.items() if key != "no_rope_layers"})
        interval = hf_config.get("no_rope_layer_interval", PERIOD)
        layers = tuple(map(bool, flags)) if flags else _pattern(config.n_layers, interval)
        return replace(config, qk_norm="none", rope_layers=() if all(layers) else layers)


def _pattern(n_layers: int, period: int) -> tuple[bool, ...]:
    """No rotary positions on every `period`-th layer; () if that leaves out none."""
    layers = tuple((layer + 1) % period != 0 for layer in range(n_layers))
    return () if all(layers) else layers
