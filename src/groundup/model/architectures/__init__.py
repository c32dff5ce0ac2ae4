"""The slot of architectures: a part turns a depth into the config of a decoder, and knows its published form.

A published form is a config.json and names of weights, as transformers, vLLM and llama.cpp read them.
"""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from groundup.core.recipe import Recipe
from groundup.model.architectures._hf_config import (
    NEUTRAL,
    refuse_others,
    scaling_from_hf,
    scaling_to_hf,
)
from groundup.model.config import DecoderConfig, RopeScaling

HEAD_DIM = 64
WIDTH_PER_LAYER = 64

Tensors = dict[str, Tensor]


class Architecture(Recipe):
    """Base of the parts in this folder."""

    model_type: ClassVar[str]
    """as in config.json"""
    published_class: ClassVar[str]
    """transformers' class"""
    not_computed: ClassVar[dict[str, tuple[Any, ...]]] = {}
    """keys of its config.json beside `NEUTRAL` that change the arithmetic, with the values that are computed"""

    def config(self, depth: int, vocab_size: int, max_seq_len: int) -> DecoderConfig:
        """The decoder of this depth. Raises ValueError where the part's own numbers don't fit it."""
        raise NotImplementedError

    @classmethod
    def to_hf(cls, config: DecoderConfig) -> dict[str, Any]:
        """config.json for transformers' class."""
        raise NotImplementedError

    @classmethod
    def from_hf(cls, said: dict[str, Any]) -> DecoderConfig:
        """The config behind a published config.json. Raises ValueError for a variant that isn't computed here."""
        raise NotImplementedError

    @classmethod
    def tensors_to_hf(cls, config: DecoderConfig, tensors: Tensors) -> Tensors:
        """Our weights under their published names and in their published shapes."""
        return tensors

    @classmethod
    def tensors_from_hf(cls, config: DecoderConfig, tensors: Tensors) -> Tensors:
        """The inverse of `tensors_to_hf`."""
        return tensors


class Dense(Architecture):
    """What the parts with rotary positions and SwiGLU have in common: their numbers, each 0 = from depth."""

    d_model: int = Field(default=0, ge=0, description="width of the stream; 0 = 64 x depth")
    n_heads: int = Field(default=0, ge=0, description="query heads; 0 = d_model / 64")
    n_kv_heads: int = Field(
        default=0, ge=0, description="key/value heads; 0 = n_heads, or a quarter from 16 up"
    )
    d_ff: int = Field(default=0, ge=0, description="feed-forward width; 0 = 8/3 of d_model")
    tie_embeddings: bool = Field(default=False, description="one matrix for embedding and head")
    rope_theta: float = Field(default=10_000.0, gt=0, description="base of the rotary angles")
    rope_scaling: RopeScaling | None = Field(
        default=None, description="stretches the angles to a longer context: a table with kind, factor, ..."
    )
    value_embeddings: bool = Field(
        default=False, description="fast: a vector of the token itself joins the values of every second layer"
    )
    residual_scalars: bool = Field(default=False, description="fast: a learnt factor on the stream per layer")
    embedding_scalars: bool = Field(
        default=False, description="fast: a learnt share of the embedding joins the stream at every layer"
    )
    relu2: bool = Field(
        default=False, description="fast: up, ReLU^2, down instead of SwiGLU, of equal parameters"
    )
    logit_softcap: float = Field(
        default=0.0, ge=0, description="fast: logits become c tanh(logits / c); 0 = off"
    )
    zero_init: bool = Field(default=False, description="what writes into the stream starts at zero")

    def config(self, depth: int, vocab_size: int, max_seq_len: int) -> DecoderConfig:
        """The decoder of this depth.

        0 means by the rule: width 64 x depth; heads of 64 numbers; one key/value head per query head below 16
        heads, then one per 4; feed-forward 8/3 of the width (4 with ReLU^2, which has two matrices instead of
        three), rounded up to a multiple of 64.
        Raises ValueError naming both numbers where heads and width don't fit.
        """
        width = self.d_model or WIDTH_PER_LAYER * depth
        heads = self.n_heads or max(1, width // HEAD_DIM)
        if width % heads:
            raise ValueError(
                f"n_heads = {heads} does not divide d_model = {width}: every head gets the same share of the width. "
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

    defaults: ClassVar[dict[str, Any]] = {"rms_norm_eps": 1e-6, "rope_theta": 10_000.0}
    """what transformers' class takes for keys that a config.json doesn't have"""

    @classmethod
    def to_hf(cls, config: DecoderConfig) -> dict[str, Any]:
        """The keys that all these share; a part adds its own."""
        rope = scaling_to_hf(config.rope_scaling, config.rope_theta)
        return {
            "architectures": [cls.published_class],
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
            # Said, since some classes have defaults; a tokenizer's own stand in their place where there is one.
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
            "dtype": "float32",
        }

    @classmethod
    def from_hf(cls, said: dict[str, Any]) -> DecoderConfig:
        """From the shared keys. Raises ValueError naming what isn't computed here."""
        refuse_others(said, {"hidden_act": ("silu", "swish")} | NEUTRAL | cls.not_computed)
        said = cls.defaults | said
        theta, scaling = cls.rope_from_hf(said)
        heads = said["num_attention_heads"]
        return DecoderConfig(
            vocab_size=said["vocab_size"],
            d_model=said["hidden_size"],
            n_layers=said["num_hidden_layers"],
            n_heads=heads,
            n_kv_heads=said.get("num_key_value_heads") or heads,
            head_dim=said.get("head_dim") or said["hidden_size"] // heads,
            d_ff=said["intermediate_size"],
            architecture=cls.__module__.rsplit(".", 1)[-1],
            rope_theta=theta,
            rope_scaling=scaling,
            norm_eps=said["rms_norm_eps"],
            tie_embeddings=said.get("tie_word_embeddings") or False,
            max_seq_len=said["max_position_embeddings"],
        )

    @classmethod
    def rope_from_hf(cls, said: dict[str, Any]) -> tuple[float, RopeScaling | None]:
        """Base and scaling of the rotary angles."""
        return scaling_from_hf(said)

    @classmethod
    def tensors_from_hf(cls, config: DecoderConfig, tensors: Tensors) -> Tensors:
        """Without what old files hold beside weights: tables of angles, and a tied head's second copy."""
        kept = {name: value for name, value in tensors.items() if not name.endswith("rotary_emb.inv_freq")}
        return without_tied_head(config, kept, "model.embed_tokens.weight")


def without_tied_head(config: DecoderConfig, tensors: Tensors, embedding: str) -> Tensors:
    """Without the head where it is the embedding's copy. Raises ValueError where it is another matrix."""
    head = tensors.get("lm_head.weight")
    if head is None or not config.tie_embeddings:
        return tensors
    if not torch.equal(head, tensors[embedding]):
        raise ValueError(
            "config.json has tie_word_embeddings = true, but lm_head.weight isn't the embedding: set it to false"
        )
    return {name: value for name, value in tensors.items() if name != "lm_head.weight"}


def _nearest_divisor(width: int, heads: int) -> int:
    divisors = [n for n in range(1, width + 1) if width % n == 0 and width // n % 2 == 0]
    return min(divisors or [1], key=lambda n: abs(n - heads))
