"""GPT-2: learned positions, LayerNorm, GELU, biases on all linear maps. For starting from published weights.

Radford et al. 2019, https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
"""

from typing import Any, ClassVar

import torch
from pydantic import Field

from groundup.model.architectures import HEAD_DIM, WIDTH_PER_LAYER, Architecture, Tensors, drop_tied_head
from groundup.model.architectures._hf_config import NEUTRAL_VALUES, refuse_unsupported
from groundup.model.config import DecoderConfig

NAMES = {
    "model.embed_tokens.weight": "transformer.wte.weight",
    "model.embed_positions.weight": "transformer.wpe.weight",
    "model.norm.weight": "transformer.ln_f.weight",
    "model.norm.bias": "transformer.ln_f.bias",
    "lm_head.weight": "lm_head.weight",
}
NORMS = {"input_layernorm": "ln_1", "post_attention_layernorm": "ln_2"}
LINEARS = {"self_attn.o_proj": "attn.c_proj", "mlp.up_proj": "mlp.c_fc", "mlp.down_proj": "mlp.c_proj"}
FUSED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
"""Stored as one matrix, attn.c_attn."""
MASKS = (".attn.bias", ".attn.masked_bias")
"""Causal masks, which old files hold besides the weights."""


class Gpt2(Architecture):
    """Pre-norm decoder with learned positions, LayerNorm, GELU and biases. Sizes of 0 are derived from the depth."""

    model_type: ClassVar[str] = "gpt2"
    hf_class: ClassVar[str] = "GPT2LMHeadModel"
    gguf_arch: ClassVar[str] = "gpt2"
    supported_values: ClassVar[dict[str, tuple[Any, ...]]] = {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
    }

    d_model: int = Field(default=0, ge=0, description="width of the residual stream; 0 = 64 x depth")
    n_heads: int = Field(default=0, ge=0, description="number of heads; 0 = d_model / 64")
    d_ff: int = Field(default=0, ge=0, description="feed-forward width; 0 = 4 x d_model")
    tie_embeddings: bool = Field(
        default=True, description="share one matrix between the embedding and the output head"
    )

    def config(self, depth: int, vocab_size: int, max_seq_len: int) -> DecoderConfig:
        """The DecoderConfig for this depth. Raises ValueError if n_heads does not divide d_model."""
        width = self.d_model or WIDTH_PER_LAYER * depth
        heads = self.n_heads or max(1, width // HEAD_DIM)
        if width % heads:
            raise ValueError(f"n_heads = {heads} does not divide d_model = {width}")
        return _config(
            vocab_size, width, depth, heads, self.d_ff or 4 * width, max_seq_len, self.tie_embeddings
        )

    @classmethod
    def to_hf(cls, config: DecoderConfig) -> dict[str, Any]:
        """The config.json of GPT2LMHeadModel."""
        return {
            "architectures": [cls.hf_class],
            "model_type": cls.model_type,
            "vocab_size": config.vocab_size,
            "n_positions": config.max_seq_len,
            "n_ctx": config.max_seq_len,
            "n_embd": config.d_model,
            "n_layer": config.n_layers,
            "n_head": config.n_heads,
            "n_inner": config.d_ff,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": config.norm_eps,
            "attn_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "resid_pdrop": 0.0,
            "tie_word_embeddings": config.tie_embeddings,
            "use_cache": True,
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
            "dtype": "float32",
        }

    @classmethod
    def from_hf(cls, hf_config: dict[str, Any]) -> DecoderConfig:
        """The DecoderConfig of a config.json. Raises ValueError naming an unsupported key and its value."""
        refuse_unsupported(hf_config, NEUTRAL_VALUES | cls.supported_values)
        width = hf_config["n_embd"]
        return _config(
            hf_config["vocab_size"],
            width,
            hf_config["n_layer"],
            hf_config["n_head"],
            hf_config.get("n_inner") or 4 * width,
            hf_config["n_positions"],
            hf_config.get("tie_word_embeddings", True),
            hf_config.get("layer_norm_epsilon", 1e-5),
        )

    @classmethod
    def tensors_to_hf(cls, config: DecoderConfig, tensors: Tensors) -> Tensors:
        """Hugging Face names; matrices are transposed, and queries, keys and values are one matrix."""
        converted = {NAMES[name]: value for name, value in tensors.items() if name in NAMES}
        for layer in range(config.n_layers):
            ours, theirs = f"model.layers.{layer}.", f"transformer.h.{layer}."
            for kind in ("weight", "bias"):
                for name, other in NORMS.items():
                    converted[f"{theirs}{other}.{kind}"] = tensors[f"{ours}{name}.{kind}"]
                for name, other in LINEARS.items():
                    converted[f"{theirs}{other}.{kind}"] = tensors[f"{ours}{name}.{kind}"].t()
                fused = torch.cat([tensors[f"{ours}{name}.{kind}"] for name in FUSED])
                converted[f"{theirs}attn.c_attn.{kind}"] = fused.t()
        return converted

    @classmethod
    def tensors_from_hf(cls, config: DecoderConfig, tensors: Tensors) -> Tensors:
        """The inverse, also for names without the prefix `transformer.`. Raises KeyError for a missing tensor."""
        remaining = {
            name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}": value
            for name, value in tensors.items()
            if not name.endswith(MASKS)
        }
        remaining = drop_tied_head(config, remaining, "transformer.wte.weight")
        converted = {ours: remaining.pop(theirs) for ours, theirs in NAMES.items() if theirs in remaining}
        for layer in range(config.n_layers):
            ours, theirs = f"model.layers.{layer}.", f"transformer.h.{layer}."
            for kind in ("weight", "bias"):
                for name, other in NORMS.items():
                    converted[f"{ours}{name}.{kind}"] = remaining.pop(f"{theirs}{other}.{kind}")
                for name, other in LINEARS.items():
                    converted[f"{ours}{name}.{kind}"] = remaining.pop(f"{theirs}{other}.{kind}").t()
                fused = remaining.pop(f"{theirs}attn.c_attn.{kind}").t()
                qkv = [f"{ours}{name}.{kind}" for name in FUSED]
                converted |= dict(zip(qkv, fused.chunk(3), strict=True))
        return converted | remaining


def _config(
    vocab_size: int,
    width: int,
    depth: int,
    heads: int,
    d_ff: int,
    max_seq_len: int,
    tied: bool,
    eps: float = 1e-5,
) -> DecoderConfig:
    return DecoderConfig(
        vocab_size=vocab_size,
        d_model=width,
        n_layers=depth,
        n_heads=heads,
        n_kv_heads=heads,
        head_dim=width // heads,
        d_ff=d_ff,
        architecture="gpt2",
        norm_eps=eps,
        norm="layer",
        qk_norm="none",
        positions="learned",
        activation="gelu",
        biases=True,
        tie_embeddings=tied,
        max_seq_len=max_seq_len,
    )
