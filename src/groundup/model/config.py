"""The shape of a decoder: every number and every switch that decides its parameters and its arithmetic.

in:  numbers (from an architecture part, or from a published config.json)
out: DecoderConfig, which `decoder.py` builds; `architectures/` turn it into published config.json and back
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from groundup.core.recipe import Recipe

GATE_CHANNELS = 32
"""Numbers of the stream from which the gates of a value embedding are computed."""


SCALING_KEYS = {
    "linear": (),
    "llama3": ("original_max_seq_len", "low_freq_factor", "high_freq_factor"),
    "yarn": ("original_max_seq_len", "attention_factor", "beta_fast", "beta_slow", "truncate"),
    "longrope": ("original_max_seq_len", "attention_factor", "short_factor", "long_factor"),
}
"""What each kind of scaling has besides its factor."""


class RopeScaling(Recipe):
    """How rotary angles are stretched to contexts longer than those of the first training; see `rotary.py`."""

    kind: Literal["linear", "yarn", "llama3", "longrope"] = "yarn"
    factor: float = Field(default=1.0, gt=0, description="how many times longer the context becomes")
    original_max_seq_len: int = Field(
        default=0, ge=0, description="context of the first training; not for linear"
    )
    attention_factor: float = Field(
        default=0.0,
        ge=0,
        description="yarn, longrope: what cosine and sine are multiplied by; 0 = by the paper's rule",
    )
    beta_fast: float = Field(
        default=32.0, gt=0, description="yarn: angles with more turns in the original context stay"
    )
    beta_slow: float = Field(default=1.0, gt=0, description="yarn: angles with fewer are fully stretched")
    truncate: bool = Field(default=True, description="yarn: both borders are rounded to whole pairs")
    low_freq_factor: float = Field(
        default=1.0, gt=0, description="llama3: angles with fewer turns in the original context are stretched"
    )
    high_freq_factor: float = Field(default=4.0, gt=0, description="llama3: angles with more stay")
    short_factor: tuple[float, ...] = Field(
        default=(), description="longrope: divisor of each pair's angle within the original context"
    )
    long_factor: tuple[float, ...] = Field(default=(), description="longrope: the same beyond it")

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
                f'kind = "{self.kind}" needs original_max_seq_len, the context of the first training'
            )
        if self.kind == "llama3" and self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor = {self.high_freq_factor} must lie above "
                f"low_freq_factor = {self.low_freq_factor}"
            )
        return self


@dataclass(frozen=True)
class MoE:
    """A feed-forward made of many experts, of which every token uses a few; see `moe.py`."""

    n_experts: int
    n_experts_per_token: int
    d_expert: int
    """width of one expert"""
    n_shared_experts: int = 0
    """experts that every token uses, beside the chosen ones"""
    normalize: bool = True
    """the chosen experts' weights add up to one"""
    balance: Literal["bias", "loss", "none"] = "loss"
    """what keeps all experts busy"""
    balance_rate: float = 1e-3
    """loss: its coefficient; bias: what an expert's bias changes by in a step"""

    def __post_init__(self) -> None:
        if not 1 <= self.n_experts_per_token <= self.n_experts:
            raise ValueError(
                f"n_experts_per_token = {self.n_experts_per_token} must lie between 1 and n_experts = {self.n_experts}"
            )


@dataclass(frozen=True)
class DecoderConfig:
    """A decoder. The defaults are Qwen3's; each architecture sets what it does otherwise.

    The last group are the fast switches: lower loss for the same time, but common runtimes don't compute them.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    architecture: str = "qwen3"
    """the part in `architectures/` under whose names the weights are published"""
    norm_eps: float = 1e-6
    norm: Literal["rms", "layer"] = "rms"
    norm_at: Literal["input", "output"] = "input"
    """of attention and feed-forward; OLMo norms what they give instead of what they get"""
    qk_norm: Literal["none", "head", "width"] = "head"
    """norm on queries and keys: per head, or over all heads at once"""
    positions: Literal["rope", "learned"] = "rope"
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    """on layers without a window"""
    windows: tuple[int, ...] = ()
    """per layer: how many positions back it sees, itself included; 0 = all. () = all layers see all"""
    activation: Literal["swiglu", "gelu", "relu2"] = "swiglu"
    biases: bool = False
    moe: MoE | None = None
    tie_embeddings: bool = False
    max_seq_len: int = 512

    value_embeddings: bool = False
    """every second layer adds a learnt vector of the token itself to its values"""
    residual_scalars: bool = False
    """a learnt factor on the stream before every layer"""
    embedding_scalars: bool = False
    """a learnt share of the embedding is added to the stream before every layer"""
    logit_softcap: float = 0.0
    """c > 0: logits become c tanh(logits / c)"""
    zero_init: bool = False
    """what writes into the stream starts at zero"""

    def __post_init__(self) -> None:
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_kv_heads = {self.n_kv_heads} does not divide n_heads = {self.n_heads}: "
                "every key/value head must serve the same number of query heads"
            )
        if self.head_dim % 2 and self.positions == "rope":
            raise ValueError(f"head_dim = {self.head_dim} is odd: rotary positions turn pairs of numbers")
        if self.windows and len(self.windows) != self.n_layers:
            raise ValueError(f"windows names {len(self.windows)} layers of {self.n_layers}")
        if self.moe is not None and (self.activation != "swiglu" or self.biases):
            raise ValueError("experts are SwiGLU without biases: no other activation is computed for them")
        if self.rope_scaling is not None:
            self._check_scaling(self.rope_scaling)

    def _check_scaling(self, scaling: RopeScaling) -> None:
        if self.positions == "learned":
            raise ValueError("rope_scaling stretches rotary positions, and these are learned")
        for name in ("short_factor", "long_factor"):
            count = len(getattr(scaling, name))
            if scaling.kind == "longrope" and count != self.head_dim // 2:
                raise ValueError(
                    f"rope_scaling.{name} has {count} numbers; heads of {self.head_dim} numbers "
                    f"have {self.head_dim // 2} pairs"
                )

    def window(self, layer: int) -> int:
        """How far back `layer` sees; 0 = everything."""
        return self.windows[layer] if self.windows else 0

    def has_value_embedding(self, layer: int) -> bool:
        """Every second layer, the last one among them."""
        return self.value_embeddings and layer % 2 == (self.n_layers - 1) % 2

    def unportable(self) -> list[str]:
        """The switches in use that published formats can't carry."""
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
        """Plain JSON, from which `from_json` makes an equal config."""
        scaling = self.rope_scaling and self.rope_scaling.model_dump()
        return asdict(self) | {"rope_scaling": scaling}

    @staticmethod
    def from_json(payload: dict[str, Any]) -> "DecoderConfig":
        """Back from `to_json`, once through JSON or not. Raises TypeError or ValueError for unknown keys."""
        scaling = payload.get("rope_scaling")
        fields = {
            "windows": tuple(payload.get("windows", ())),
            "rope_scaling": None if scaling is None else RopeScaling.model_validate(scaling),
            "moe": payload.get("moe") and MoE(**payload["moe"]),
        }
        return DecoderConfig(**(payload | fields))
