"""The GPT-2 shape: learned positions, LayerNorm, GELU, biases everywhere. Here to start from published weights.

Radford et al. 2019, https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
"""

from typing import Any, ClassVar

import torch
from pydantic import Field

from groundup.model.architectures import HEAD_DIM, WIDTH_PER_LAYER, Architecture, Tensors, without_tied_head
from groundup.model.architectures._hf_config import NEUTRAL, refuse_others
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
"""One matrix in published files: attn.c_attn."""
MASKS = (".attn.bias", ".attn.masked_bias")
"""Causal masks, which old files hold beside the weights."""


class Gpt2(Architecture):
    """Pre-norm decoder with learned positions, LayerNorm, GELU and biases. 0 = from depth."""

    model_type: ClassVar[str] = "gpt2"
    published_class: ClassVar[str] = "GPT2LMHeadModel"
    not_computed: ClassVar[dict[str, tuple[Any, ...]]] = {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
    }

    d_model: int = Field(default=0, ge=0, description="width of the stream; 0 = 64 x depth")
    n_heads: int = Field(default=0, ge=0, description="heads; 0 = d_model / 64")
    d_ff: int = Field(default=0, ge=0, description="feed-forward width; 0 = 4 x d_model")
    tie_embeddings: bool = Field(default=True, description="one matrix for embedding and head")

    def config(self, depth: int, vocab_size: int, max_seq_len: int) -> DecoderConfig:
        """The decoder of this depth. Raises ValueError where heads don't divide the width."""
        width = self.d_model or WIDTH_PER_LAYER * depth
        heads = self.n_heads or max(1, width // HEAD_DIM)
        if width % heads:
            raise ValueError(f"n_heads = {heads} does not divide d_model = {width}")
        return _config(
            vocab_size, width, depth, heads, self.d_ff or 4 * width, max_seq_len, self.tie_embeddings
        )

    @classmethod
    def to_hf(cls, config: DecoderConfig) -> dict[str, Any]:
        """config.json."""
        return {
            "architectures": [cls.published_class],
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
    def from_hf(cls, said: dict[str, Any]) -> DecoderConfig:
        """From a published config.json. Raises ValueError naming what isn't computed here."""
        refuse_others(said, NEUTRAL | cls.not_computed)
        width = said["n_embd"]
        return _config(
            said["vocab_size"],
            width,
            said["n_layer"],
            said["n_head"],
            said.get("n_inner") or 4 * width,
            said["n_positions"],
            said.get("tie_word_embeddings", True),
            said.get("layer_norm_epsilon", 1e-5),
        )

    @classmethod
    def tensors_to_hf(cls, config: DecoderConfig, tensors: Tensors) -> Tensors:
        """Published names; matrices lie the other way round, and queries, keys and values are one."""
        found = {NAMES[name]: value for name, value in tensors.items() if name in NAMES}
        for layer in range(config.n_layers):
            ours, theirs = f"model.layers.{layer}.", f"transformer.h.{layer}."
            for kind in ("weight", "bias"):
                for name, other in NORMS.items():
                    found[f"{theirs}{other}.{kind}"] = tensors[f"{ours}{name}.{kind}"]
                for name, other in LINEARS.items():
                    found[f"{theirs}{other}.{kind}"] = tensors[f"{ours}{name}.{kind}"].t()
                fused = torch.cat([tensors[f"{ours}{name}.{kind}"] for name in FUSED])
                found[f"{theirs}attn.c_attn.{kind}"] = fused.t()
        return found

    @classmethod
    def tensors_from_hf(cls, config: DecoderConfig, tensors: Tensors) -> Tensors:
        """The inverse, also for files whose names lack `transformer.`. Raises KeyError for a missing one."""
        left = {
            name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}": value
            for name, value in tensors.items()
            if not name.endswith(MASKS)
        }
        left = without_tied_head(config, left, "transformer.wte.weight")
        found = {ours: left.pop(theirs) for ours, theirs in NAMES.items() if theirs in left}
        for layer in range(config.n_layers):
            ours, theirs = f"model.layers.{layer}.", f"transformer.h.{layer}."
            for kind in ("weight", "bias"):
                for name, other in NORMS.items():
                    found[f"{ours}{name}.{kind}"] = left.pop(f"{theirs}{other}.{kind}")
                for name, other in LINEARS.items():
                    found[f"{ours}{name}.{kind}"] = left.pop(f"{theirs}{other}.{kind}").t()
                fused = left.pop(f"{theirs}attn.c_attn.{kind}").t()
                found |= dict(zip([f"{ours}{name}.{kind}" for name in FUSED], fused.chunk(3), strict=True))
        return found | left


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
