"""The shape of a decoder: every number and every switch that decides its parameters and its arithmetic.

in:  numbers (from an architecture part, or from a published config.json)
out: DecoderConfig, which `decoder.py` builds; `architectures/` turn it into published config.json and back
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class RopeScaling:
    """How rotary angles are stretched to contexts longer than those of the first training; see `rotary.py`."""

    kind: Literal["linear", "yarn", "llama3", "longrope"]
    factor: float
    original_max_seq_len: int
    """context of the first training"""
    attention_factor: float = 0.0
    """yarn, longrope: what cosine and sine are multiplied by; 0 = by the paper's rule"""
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    """yarn: turns within the original context above which angles stay, below which they are stretched"""
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    """llama3: the same two borders, as shares of the original context"""
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()
    """longrope: divisor of each pair's angle, within and beyond the original context"""


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
        return asdict(self)

    @staticmethod
    def from_json(said: dict[str, Any]) -> "DecoderConfig":
        """Back from `to_json`, once through JSON or not. Raises TypeError for unknown keys."""
        scaling: dict[str, Any] | None = said.get("rope_scaling")
        if scaling is not None:
            scaling = {key: tuple(v) if isinstance(v, list) else v for key, v in scaling.items()}
        fields = {
            "windows": tuple(said.get("windows", ())),
            "rope_scaling": scaling and RopeScaling(**scaling),
            "moe": said.get("moe") and MoE(**said["moe"]),
        }
        return DecoderConfig(**(said | fields))
