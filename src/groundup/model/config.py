"""Decoder config: all numbers and switches that determine a decoder's parameters and arithmetic.

in:  numbers from an architecture plugin or from a config.json
out: DecoderConfig, from which `decoder.py` builds the model; `architectures/` convert it to config.json and back
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from groundup.core.recipe import Recipe

GATE_CHANNELS = 32
"""Channels of the stream that the gates of a value embedding read."""


SCALING_KEYS = {
    "linear": (),
    "llama3": ("original_max_seq_len", "low_freq_factor", "high_freq_factor"),
    "yarn": ("original_max_seq_len", "attention_factor", "beta_fast", "beta_slow", "truncate"),
    "longrope": ("original_max_seq_len", "attention_factor", "short_factor", "long_factor"),
}
"""The fields of each kind of scaling, besides its factor."""


class RopeScaling(Recipe):
    """RoPE scaling for contexts longer than those of the original training; see `rotary.py`."""

    kind: Literal["linear", "yarn", "llama3", "longrope"] = "yarn"
    factor: float = Field(
        default=1.0, gt=0, description="ratio of the new context length to the original one"
    )
    original_max_seq_len: int = Field(
        default=0, ge=0, description="context length of the original training; not for linear"
    )
    attention_factor: float = Field(
        default=0.0,
        ge=0,
        description="yarn, longrope: factor on cosine and sine; 0 = the paper's rule",
    )
    beta_fast: float = Field(
        default=32.0,
        gt=0,
        description="yarn: frequencies with more rotations in the original context are not scaled",
    )
    beta_slow: float = Field(
        default=1.0, gt=0, description="yarn: frequencies with fewer rotations are fully scaled"
    )
    truncate: bool = Field(default=True, description="yarn: round both bounds to whole pairs")
    low_freq_factor: float = Field(
        default=1.0,
        gt=0,
        description="llama3: frequencies with fewer rotations in the original context are scaled",
    )
    high_freq_factor: float = Field(
        default=4.0, gt=0, description="llama3: frequencies with more rotations are not scaled"
    )
    short_factor: tuple[float, ...] = Field(
        default=(), description="longrope: divisor of each pair's frequency within the original context"
    )
    long_factor: tuple[float, ...] = Field(
        default=(), description="longrope: divisor of each pair's frequency beyond the original context"
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        unused = [
            name
            for name, field in type(self).model_fields.items()
            if name not in ("kind", "factor", *SCALING_KEYS[self.kind])
            and getattr(self, name) != field.default
        ]
        if unused:
            raise ValueError(f'kind = "{self.kind}" has no {unused[0]}. It has: factor'
                             + "".join(f", {name}" for name in SCALING_KEYS[self.kind]))  # fmt: skip
        if self.kind != "linear" and not self.original_max_seq_len:
            raise ValueError(
                f'kind = "{self.kind}" needs original_max_seq_len, the context length of the original training'
            )
        if self.kind == "llama3" and self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor = {self.high_freq_factor} must be greater than "
                f"low_freq_factor = {self.low_freq_factor}"
            )
        return self


@dataclass(frozen=True)
class MoE:
    """Mixture of experts as the feed-forward; see `moe.py`."""

    n_experts: int
    n_experts_per_token: int
    d_expert: int
    """width of one expert"""
    n_shared_experts: int = 0
    """experts that every token uses, besides the routed ones"""
    normalize: bool = True
    """normalize the weights of a token's experts to sum to one"""
    balance: Literal["bias", "loss", "none"] = "loss"
    """load balancing: a bias on the router's choice, an auxiliary loss, or none"""
    balance_rate: float = 1e-3
    """loss: its coefficient; bias: change of an expert's bias per step"""

    def __post_init__(self) -> None:
        if not 1 <= self.n_experts_per_token <= self.n_experts:
            raise ValueError(
                f"n_experts_per_token = {self.n_experts_per_token} must be between 1 and n_experts = {self.n_experts}"
            )


@dataclass(frozen=True)
class DecoderConfig:
    """Config of a decoder. The defaults are those of Qwen3; architectures set their own.

    The last group are the fast switches: lower loss per FLOP, but unknown to common runtimes.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    architecture: str = "qwen3"
    """plugin in `architectures/` that converts to and from Hugging Face names"""
    norm_eps: float = 1e-6
    norm: Literal["rms", "layer"] = "rms"
    norm_at: Literal["input", "output"] = "input"
    """norms before attention and feed-forward, or after them (OLMo)"""
    qk_norm: Literal["none", "head", "width"] = "head"
    """norm of queries and keys: per head, or over all heads together"""
    positions: Literal["rope", "learned"] = "rope"
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    """on layers without a window"""
    rope_layers: tuple[bool, ...] = ()
    """per layer: whether it has rotary positions; () = all layers"""
    windows: tuple[int, ...] = ()
    """per layer: sliding window in positions, the current one included; 0 = full attention. () = full everywhere"""
    activation: Literal["swiglu", "gelu", "relu2"] = "swiglu"
    biases: bool | Literal["qkv"] = False
    """on all linear maps, or on queries, keys and values alone"""
    moe: MoE | None = None
    tie_embeddings: bool = False
    max_seq_len: int = 512

    value_embeddings: bool = False
    """every second layer adds a learned embedding of the token to its values"""
    residual_scalars: bool = False
    """a learned factor on the stream before every layer"""
    embedding_scalars: bool = False
    """the embedding times a learned factor is added to the stream before every layer"""
    logit_softcap: float = 0.0
    """c > 0: logits become c tanh(logits / c)"""
    zero_init: bool = False
    """output projections are initialized to zero"""

    induction: bool = False
    """layers 0 and 1 hold an induction circuit, which training leaves unchanged; see `induction.py`. Changes no
    arithmetic"""

    def __post_init__(self) -> None:
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_kv_heads = {self.n_kv_heads} does not divide n_heads = {self.n_heads}: "
                "every key/value head must serve the same number of query heads"
            )
        if self.head_dim % 2 and self.positions == "rope":
            raise ValueError(f"head_dim = {self.head_dim} is odd: rotary positions need pairs of channels")
        if self.windows and len(self.windows) != self.n_layers:
            raise ValueError(f"windows has {len(self.windows)} entries for {self.n_layers} layers")
        if self.rope_layers and len(self.rope_layers) != self.n_layers:
            raise ValueError(f"rope_layers has {len(self.rope_layers)} entries for {self.n_layers} layers")
        if self.moe is not None and (self.activation != "swiglu" or self.biases):
            raise ValueError('experts support only activation = "swiglu" without biases')
        if self.rope_scaling is not None:
            self._check_scaling(self.rope_scaling)
        if self.induction:
            self._check_induction()

    def _check_induction(self) -> None:
        checks = {
            f"{self.architecture} has learned positions": self.positions == "rope",
            "layer 0 has no rotary positions": self.has_rope(0),
            f"depth = {self.n_layers}": self.n_layers >= 2,
            f"n_heads = {self.n_heads}": self.n_heads >= 2,
            f"head_dim = {self.head_dim}": self.head_dim >= 8,
            f"d_model = {self.d_model} with head_dim = {self.head_dim}": self.d_model > 2 * self.head_dim,
        }
        problem = next((problem for problem, passed in checks.items() if not passed), None)
        if problem:
            raise ValueError(
                'init = "induction" needs rotary positions in the first layer, two layers, two heads of at least 8 '
                f'channels and a wider stream than both together; {problem}. Use init = "standard"'
            )

    def _check_scaling(self, scaling: RopeScaling) -> None:
        if self.positions == "learned":
            raise ValueError('rope_scaling needs positions = "rope"')
        for name in ("short_factor", "long_factor"):
            count = len(getattr(scaling, name))
            if scaling.kind == "longrope" and count != self.head_dim // 2:
                raise ValueError(
                    f"rope_scaling.{name} has {count} numbers; heads of {self.head_dim} numbers "
                    f"have {self.head_dim // 2} pairs"
                )

    def window(self, layer: int) -> int:
        """Sliding window of `layer`; 0 = full attention."""
        return self.windows[layer] if self.windows else 0

    def has_rope(self, layer: int) -> bool:
        """Whether `layer` has rotary positions."""
        return not self.rope_layers or self.rope_layers[layer]

    def has_value_embedding(self, layer: int) -> bool:
        """Whether `layer` has a value embedding: every second one, the last included."""
        return self.value_embeddings and layer % 2 == (self.n_layers - 1) % 2

    def unportable(self) -> list[str]:
        """Names of the enabled switches that other formats can't express."""
        switches = {
            "value_embeddings": self.value_embeddings,
            "residual_scalars": self.residual_scalars,
            "embedding_scalars": self.embedding_scalars,
            "logit_softcap": self.logit_softcap > 0,
            'activation = "relu2"': self.activation == "relu2",
            'balance = "bias"': self.moe is not None and self.moe.balance == "bias",
            "n_shared_experts": self.moe is not None and self.moe.n_shared_experts > 0,
        }
        return [name for name, used in switches.items() if used]

    def to_json(self) -> dict[str, Any]:
        """The config as JSON."""
        scaling = self.rope_scaling and self.rope_scaling.model_dump()
        return asdict(self) | {"rope_scaling": scaling}

    @staticmethod
    def from_json(payload: dict[str, Any]) -> "DecoderConfig":
        """Inverse of `to_json`. Raises TypeError or ValueError for unknown keys."""
        scaling = payload.get("rope_scaling")
        fields = {
            "windows": tuple(payload.get("windows", ())),
            "rope_layers": tuple(payload.get("rope_layers", ())),
            "rope_scaling": None if scaling is None else RopeScaling.model_validate(scaling),
            "moe": payload.get("moe") and MoE(**payload["moe"]),
        }
        return DecoderConfig(**(payload | fields))
