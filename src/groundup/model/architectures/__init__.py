"""Architecture plugins: each turns a depth into a DecoderConfig and converts config.json and tensor names.

The Hugging Face form of a model is a config.json and tensor names, as transformers and vLLM read them.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from groundup.core.recipe import Recipe
from groundup.model.architectures._hf_config import (
    NEUTRAL_VALUES,
    refuse_unsupported,
    scaling_from_hf,
    scaling_to_hf,
)
from groundup.model.config import DecoderConfig, RopeScaling

HEAD_DIM = 64
WIDTH_PER_LAYER = 64

Tensors = dict[str, Tensor]


class Architecture(Recipe):
    """Base class of the plugins in this folder."""

    model_type: ClassVar[str]
    """`model_type` in config.json"""
    hf_class: ClassVar[str]
    """`architectures` in config.json: the class in transformers"""
    gguf_arch: ClassVar[str] = ""
    """`general.architecture` in GGUF files; "" = llama.cpp does not support it"""
    supported_values: ClassVar[dict[str, tuple[Any, ...]]] = {}
    """keys of config.json besides `NEUTRAL` that change the arithmetic, with the values supported here"""

    @abstractmethod
    def config(self, depth: int, vocab_size: int, max_seq_len: int) -> DecoderConfig:
        """The DecoderConfig for this depth. Raises ValueError if the plugin's own values do not fit it."""

    @classmethod
    @abstractmethod
    def to_hf(cls, config: DecoderConfig) -> dict[str, Any]:
        """The config.json for the class in transformers."""

    @classmethod
    @abstractmethod
    def from_hf(cls, hf_config: dict[str, Any]) -> DecoderConfig:
        """The DecoderConfig of a config.json. Raises ValueError for an unsupported variant."""

    @classmethod
    def tensors_to_hf(cls, config: DecoderConfig, tensors: Tensors) -> Tensors:
        """The weights under Hugging Face names, in Hugging Face shapes."""
        return tensors

    @classmethod
    def tensors_from_hf(cls, config: DecoderConfig, tensors: Tensors) -> Tensors:
        """The inverse of `tensors_to_hf`."""
        return tensors


class Dense(Architecture):
    """Base class of the decoders with rotary positions and SwiGLU. Sizes of 0 are derived from the depth."""

    d_model: int = Field(default=0, ge=0, description="width of the residual stream; 0 = 64 x depth")
    n_heads: int = Field(default=0, ge=0, description="number of query heads; 0 = d_model / 64")
    n_kv_heads: int = Field(
        default=0, ge=0, description="number of key/value heads; 0 = n_heads, or n_heads / 4 if n_heads >= 16"
    )
    d_ff: int = Field(default=0, ge=0, description="feed-forward width; 0 = 8/3 x d_model")
    tie_embeddings: bool = Field(
        default=False, description="share one matrix between the embedding and the output head"
    )
    rope_theta: float = Field(default=10_000.0, gt=0, description="base of the rotary frequencies")
    rope_scaling: RopeScaling | None = Field(
        default=None, description="context extension of the rotary positions: a table with kind, factor, ..."
    )
    value_embeddings: bool = Field(
        default=False,
        description="not portable: add a learned per-token embedding to the values of every second layer",
    )
    residual_scalars: bool = Field(
        default=False, description="not portable: a learned scale on the residual stream before each layer"
    )
    embedding_scalars: bool = Field(
        default=False,
        description="not portable: add a learned multiple of the embedding to the residual stream before each layer",
    )
    relu2: bool = Field(
        default=False,
        description="not portable: an ungated ReLU^2 feed-forward with as many parameters as the SwiGLU",
    )
    logit_softcap: float = Field(
        default=0.0, ge=0, description="not portable: soft cap c on the logits, c tanh(logits / c); 0 = off"
    )
    zero_init: bool = Field(
        default=False, description="initialise the output projections of attention and feed-forward to zero"
    )

    def config(self, depth: int, vocab_size: int, max_seq_len: int) -> DecoderConfig:
        """The DecoderConfig for this depth.

        Rules for sizes of 0: d_model = 64 x depth; head_dim = 64; one key/value head per query head below 16
        heads, then one per 4; d_ff = 8/3 x d_model (4 x with ReLU^2, which has two matrices instead of three),
        rounded up to a multiple of 64.
        Raises ValueError naming both values if n_heads does not divide d_model.
        """
        width = self.d_model or WIDTH_PER_LAYER * depth
        heads = self.n_heads or max(1, width // HEAD_DIM)
        if width % heads:
            raise ValueError(
                f"n_heads = {heads} does not divide d_model = {width}: all heads have the same width. "
                f"Try n_heads = {_nearest_divisor(width, heads)}, or a d_model that is a multiple of {heads}"
            )
        d_ff = self.d_ff or -(-width * 8 // 3 // 64) * 64
        return DecoderConfig(
            vocab_size=vocab_size,
            d_model=width,
            n_layers=depth,
            n_heads=heads,
            n_kv_heads=self.n_kv_heads or (heads // 4 if heads >= 16 and heads % 4 == 0 else heads),
            head_dim=width // heads,
            d_ff=d_ff * 3 // 2 if self.relu2 else d_ff,
            rope_theta=self.rope_theta,
            rope_scaling=self.rope_scaling,
            activation="relu2" if self.relu2 else "swiglu",
            tie_embeddings=self.tie_embeddings,
            max_seq_len=max_seq_len,
            value_embeddings=self.value_embeddings,
            residual_scalars=self.residual_scalars,
            embedding_scalars=self.embedding_scalars,
            logit_softcap=self.logit_softcap,
            zero_init=self.zero_init,
        )

    hf_defaults: ClassVar[dict[str, Any]] = {"rms_norm_eps": 1e-6, "rope_theta": 10_000.0}
    """defaults of the class in transformers for keys that are absent from config.json"""

    @classmethod
    def to_hf(cls, config: DecoderConfig) -> dict[str, Any]:
        """The keys common to these architectures; subclasses add their own."""
        rope = scaling_to_hf(config.rope_scaling, config.rope_theta)
        return {
            "architectures": [cls.hf_class],
            "model_type": cls.model_type,
            "vocab_size": config.vocab_size,
            "hidden_size": config.d_model,
            "num_hidden_layers": config.n_layers,
            "num_attention_heads": config.n_heads,
            "num_key_value_heads": config.n_kv_heads,
            "head_dim": config.head_dim,
            "intermediate_size": config.d_ff,
            "hidden_act": "silu",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "mlp_bias": False,
            "rms_norm_eps": config.norm_eps,
            # transformers 5 reads rope_parameters; older versions and other runtimes read the other two.
            "rope_theta": config.rope_theta,
            "rope_parameters": rope,
            "rope_scaling": rope if config.rope_scaling else None,
            "max_position_embeddings": config.max_seq_len,
            "tie_word_embeddings": config.tie_embeddings,
            "use_cache": True,
            "use_sliding_window": False,
            # Explicit nulls override the defaults of some classes; a tokenizer's ids replace them.
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
            "dtype": "float32",
        }

    @classmethod
    def from_hf(cls, hf_config: dict[str, Any]) -> DecoderConfig:
        """Reads the common keys. Raises ValueError naming an unsupported key and its value."""
        refuse_unsupported(
            hf_config, {"hidden_act": ("silu", "swish")} | NEUTRAL_VALUES | cls.supported_values
        )
        hf_config = cls.hf_defaults | hf_config
        theta, scaling = cls.rope_from_hf(hf_config)
        heads = hf_config["num_attention_heads"]
        return DecoderConfig(
            vocab_size=hf_config["vocab_size"],
            d_model=hf_config["hidden_size"],
            n_layers=hf_config["num_hidden_layers"],
            n_heads=heads,
            n_kv_heads=hf_config.get("num_key_value_heads") or heads,
            head_dim=hf_config.get("head_dim") or hf_config["hidden_size"] // heads,
            d_ff=hf_config["intermediate_size"],
            architecture=cls.__module__.rsplit(".", 1)[-1],
            rope_theta=theta,
            rope_scaling=scaling,
            norm_eps=hf_config["rms_norm_eps"],
            tie_embeddings=hf_config.get("tie_word_embeddings") or False,
            max_seq_len=hf_config["max_position_embeddings"],
        )

    @classmethod
    def rope_from_hf(cls, hf_config: dict[str, Any]) -> tuple[float, RopeScaling | None]:
        """Rotary base and context extension."""
        return scaling_from_hf(hf_config)

    @classmethod
    def tensors_from_hf(cls, config: DecoderConfig, tensors: Tensors) -> Tensors:
        """Drops what old files hold besides weights: rotary frequency tables and the copy of a tied head."""
        kept = {name: value for name, value in tensors.items() if not name.endswith("rotary_emb.inv_freq")}
        return drop_tied_head(config, kept, "model.embed_tokens.weight")


def drop_tied_head(config: DecoderConfig, tensors: Tensors, embedding: str) -> Tensors:
    """Drops the copy of a tied head. Raises ValueError if it differs from the embedding."""
    head = tensors.get("lm_head.weight")
    if head is None or not config.tie_embeddings:
        return tensors
    if not torch.equal(head, tensors[embedding]):
        raise ValueError(
            "config.json has tie_word_embeddings = true, but lm_head.weight differs from the embedding: set it to false"
        )
    return {name: value for name, value in tensors.items() if name != "lm_head.weight"}


def _nearest_divisor(width: int, heads: int) -> int:
    divisors = [n for n in range(1, width + 1) if width % n == 0 and width // n % 2 == 0]
    return min(divisors or [1], key=lambda n: abs(n - heads))
