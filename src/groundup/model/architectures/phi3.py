"""Phi-3: Llama whose projections are stored fused; long contexts by LongRoPE.

https://arxiv.org/abs/2404.14219
"""

from dataclasses import replace
from typing import Any, ClassVar

import torch

from groundup.model.architectures import Dense, Tensors
from groundup.model.architectures._hf_config import single_window
from groundup.model.config import DecoderConfig


class Phi3(Dense):
    """Pre-norm decoder with rotary positions, GQA and SwiGLU. Sizes of 0 are derived from the depth."""

    model_type: ClassVar[str] = "phi3"
    hf_class: ClassVar[str] = "Phi3ForCausalLM"
    gguf_arch: ClassVar[str] = "llama"
    hf_defaults: ClassVar[dict[str, Any]] = {"rms_norm_eps": 1e-5, "rope_theta": 10_000.0}

    def config(self, depth: int, vocab_size: int, max_seq_len: int) -> DecoderConfig:
        """The DecoderConfig for this depth, by the rules of `Dense`."""
        return replace(super().config(depth, vocab_size, max_seq_len), architecture="phi3", qk_norm="none")

    @classmethod
    def to_hf(cls, config: DecoderConfig) -> dict[str, Any]:
        """The config.json of Phi3ForCausalLM."""
        scaling = config.rope_scaling
        return super().to_hf(config) | {
            "sliding_window": single_window(config.windows),
            "original_max_position_embeddings": scaling.original_max_seq_len
            if scaling
            else config.max_seq_len,
        }

    @classmethod
    def from_hf(cls, hf_config: dict[str, Any]) -> DecoderConfig:
        """The DecoderConfig of a config.json. Raises ValueError naming an unsupported key and its value."""
        config = super().from_hf(hf_config)
        window = hf_config.get("sliding_window")
        # A window of at least the context never applies.
        windows = (window,) * config.n_layers if window and window < config.max_seq_len else ()
        if windows and config.rope_scaling is not None:
            raise ValueError("config.json has sliding_window and rope_scaling: supported is one of them")
        return replace(config, qk_norm="none", windows=windows)

    @classmethod
    def tensors_to_hf(cls, config: DecoderConfig, tensors: Tensors) -> Tensors:
        """Queries, keys and values as one matrix, gate and up as one matrix."""
        converted = dict(tensors)
        for layer in range(config.n_layers):
            for fused, parts, _ in _fused(config, layer):
                converted[fused] = torch.cat([converted.pop(part) for part in parts])
        return converted

    @classmethod
    def tensors_from_hf(cls, config: DecoderConfig, tensors: Tensors) -> Tensors:
        """The inverse of `tensors_to_hf`. Raises KeyError for a missing tensor."""
        converted = super().tensors_from_hf(config, tensors)
        for layer in range(config.n_layers):
            for fused, parts, rows in _fused(config, layer):
                converted |= dict(zip(parts, torch.split(converted.pop(fused), rows), strict=True))
        return converted


def _fused(config: DecoderConfig, layer: int) -> list[tuple[str, list[str], list[int]]]:
    """Name of each fused matrix, the names of its parts and their numbers of rows."""
    stem = f"model.layers.{layer}"
    queries, keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    qkv = [f"{stem}.self_attn.{part}_proj.weight" for part in "qkv"]
    gate_up = [f"{stem}.mlp.{part}_proj.weight" for part in ("gate", "up")]
    return [
        (f"{stem}.self_attn.qkv_proj.weight", qkv, [queries, keys, keys]),
        (f"{stem}.mlp.gate_up_proj.weight", gate_up, [config.d_ff, config.d_ff]),
    ]
