"""The shape of a decoder, and the same as transformers' `config.json`.

in:  numbers (from an architecture part, or from a published config.json)
out: DecoderConfig, and config.json as transformers, vLLM and llama.cpp read it
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DecoderConfig:
    """Everything that decides the shapes and the arithmetic of a decoder.

    With `qk_norm` it is Qwen3, without it Llama; nothing else differs between the two.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    qk_norm: bool = True
    tie_embeddings: bool = False
    max_seq_len: int = 512

    def __post_init__(self) -> None:
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_kv_heads = {self.n_kv_heads} does not divide n_heads = {self.n_heads}: "
                "every key/value head must serve the same number of query heads"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim = {self.head_dim} is odd: rotary positions turn pairs of numbers")

    def to_huggingface(self) -> dict[str, Any]:
        """`config.json` for transformers' Qwen3ForCausalLM or LlamaForCausalLM."""
        kind = "Qwen3" if self.qk_norm else "Llama"
        return {
            "architectures": [f"{kind}ForCausalLM"],
            "model_type": kind.lower(),
            "vocab_size": self.vocab_size,
            "hidden_size": self.d_model,
            "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.n_heads,
            "num_key_value_heads": self.n_kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.d_ff,
            "hidden_act": "silu",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "mlp_bias": False,
            "rms_norm_eps": self.norm_eps,
            # transformers 5 reads rope_parameters; older versions and other runtimes read rope_theta.
            "rope_theta": self.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "max_position_embeddings": self.max_seq_len,
            "tie_word_embeddings": self.tie_embeddings,
            "use_cache": True,
            "use_sliding_window": False,
            "dtype": "float32",
        }

    @staticmethod
    def from_huggingface(config: dict[str, Any]) -> "DecoderConfig":
        """Read what `to_huggingface` wrote, or a plain published Qwen3 or Llama config.

        Raises ValueError for another architecture, or a variant that this decoder doesn't compute.
        """
        kind = config.get("model_type")
        if kind not in ("qwen3", "llama"):
            raise ValueError(f"config.json has model_type = {kind!r}; this decoder computes qwen3 and llama")
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if rope.get("rope_type", "default") != "default":
            raise ValueError(
                f"config.json scales rotary positions ({rope['rope_type']!r}), which is not computed here"
            )
        if config.get("attention_bias") or config.get("mlp_bias") or config.get("use_sliding_window"):
            raise ValueError("config.json asks for biases or sliding windows, which are not computed here")
        heads = config["num_attention_heads"]
        return DecoderConfig(
            vocab_size=config["vocab_size"],
            d_model=config["hidden_size"],
            n_layers=config["num_hidden_layers"],
            n_heads=heads,
            n_kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            d_ff=config["intermediate_size"],
            rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
            norm_eps=config["rms_norm_eps"],
            qk_norm=kind == "qwen3",
            tie_embeddings=config.get("tie_word_embeddings", False),
            max_seq_len=config["max_position_embeddings"],
        )
