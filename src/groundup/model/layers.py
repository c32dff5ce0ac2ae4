"""The pieces of a decoder: norms, projections, attention, feed-forward, and the layer made of them.

in:  the residual stream [batch, time, d_model] in the compute dtype
out: the same, with what this layer has to add

Parameters are kept in fp32 and cast where they are used, to whatever dtype the stream has; norms and softmax
are computed in fp32. Nothing here knows of training, caches or devices.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from groundup.model.attention import FUSED, Attend, attend_fused
from groundup.model.config import GATE_CHANNELS, DecoderConfig
from groundup.model.moe import Routing, SparseFeedForward
from groundup.model.rotary import CosSin, rotate

Remember = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor, Tensor]]
"""New keys and values, window -> all keys, all values, mask: one layer's share of a KVCache."""
Project = Callable[..., tuple[Tensor, ...]]
"""(x, linear, linear, ...) -> what each linear makes of x."""


def rms_norm(
    x: Float[Tensor, "*axes dim"], weight: Float[Tensor, " dim"], eps: float
) -> Float[Tensor, "*axes dim"]:
    """x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467)."""
    wide = x.float()
    scale = torch.rsqrt(wide.pow(2).mean(dim=-1, keepdim=True) + eps)
    return (wide * scale * weight).to(x.dtype)


class RMSNorm(nn.Module):
    """A norm with a learnt scale per number, which starts at one."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*axes dim"]) -> Float[Tensor, "*axes dim"]:
        return rms_norm(x, self.weight, self.eps)


class LayerNorm(nn.LayerNorm):
    """Mean 0 and variance 1, then a learnt scale and shift, in fp32 (Ba et al. 2016, https://arxiv.org/abs/1607.06450)."""

    def forward(self, x: Float[Tensor, "*axes dim"]) -> Float[Tensor, "*axes dim"]:
        return super().forward(x.float()).to(x.dtype)


class Linear(nn.Linear):
    """x W^T + b in the dtype of x; the parameters stay fp32."""

    def forward(self, x: Float[Tensor, "*axes inner"]) -> Float[Tensor, "*axes outer"]:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


def one_by_one(x: Tensor, *linears: nn.Module) -> tuple[Tensor, ...]:
    """The plain way to project: each linear for itself."""
    return tuple(linear(x) for linear in linears)


def norm(config: DecoderConfig, dim: int) -> nn.Module:
    """The norm that `config` asks for."""
    return LayerNorm(dim, config.norm_eps) if config.norm == "layer" else RMSNorm(dim, config.norm_eps)


class Attention(nn.Module):
    """Grouped-query attention. `attend` and `project` may be replaced from outside by faster ways."""

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        width, dim = config.d_model, config.head_dim
        self.heads, self.kv_heads, self.dim = config.n_heads, config.n_kv_heads, dim
        self.window = config.window(index)
        self.q_proj = Linear(width, config.n_heads * dim, bias=config.biases)
        self.k_proj = Linear(width, config.n_kv_heads * dim, bias=config.biases)
        self.v_proj = Linear(width, config.n_kv_heads * dim, bias=config.biases)
        self.o_proj = Linear(config.n_heads * dim, width, bias=config.biases)
        self.norm_each_head = config.qk_norm == "head"
        if config.qk_norm != "none":
            heads = (1, 1) if self.norm_each_head else (config.n_heads, config.n_kv_heads)
            self.q_norm, self.k_norm = (norm(config, count * dim) for count in heads)
        else:
            self.q_norm, self.k_norm = nn.Identity(), nn.Identity()
        if config.has_value_embedding(index):
            self.value_gate = Linear(min(GATE_CHANNELS, width), config.n_kv_heads, bias=False)
        self.attend: Attend = FUSED.attend
        self.project: Project = one_by_one

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        turn: CosSin | None,
        seen: Any,
        remember: Remember | None = None,
        token_values: Float[Tensor, "batch time kv_width"] | None = None,
    ) -> Float[Tensor, "batch time width"]:
        """`seen` says who sees whom, unless `remember` brings the earlier keys and a mask of its own.

        turn: cosines and sines of the positions; None where positions are in the stream already.
        token_values: what a value embedding says of each token.
        """
        q, k, v = self.project(x, self.q_proj, self.k_proj, self.v_proj)
        if self.norm_each_head:
            q, k = self.q_norm(self._heads(q)), self.k_norm(self._heads(k))
        else:
            q, k = self._heads(self.q_norm(q)), self._heads(self.k_norm(k))
        if turn is not None:
            q, k = rotate(q, *turn), rotate(k, *turn)
        v = self._heads(v)
        if token_values is not None:
            # Starts at 1: the gates' weights start at zero.
            gate = 2 * torch.sigmoid(self.value_gate(x[..., :GATE_CHANNELS])).transpose(1, 2)
            v = v + gate[..., None] * self._heads(token_values)
        keys = (k, v, seen) if remember is None else remember(k, v, self.window)
        out = self.attend(q, *keys) if remember is None else attend_fused(q, *keys)
        mixed: Tensor = self.o_proj(out.transpose(1, 2).flatten(2))
        return mixed

    def _heads(self, x: Float[Tensor, "batch time all"]) -> Float[Tensor, "batch heads time dim"]:
        return x.view(*x.shape[:2], -1, self.dim).transpose(1, 2)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer 2020, https://arxiv.org/abs/2002.05202)."""

    def __init__(self, config: DecoderConfig, width: int) -> None:
        super().__init__()
        self.gate_proj = Linear(config.d_model, width, bias=config.biases)
        self.up_proj = Linear(config.d_model, width, bias=config.biases)
        self.down_proj = Linear(width, config.d_model, bias=config.biases)
        self.project: Project = one_by_one

    def forward(self, x: Float[Tensor, "*axes width"]) -> Float[Tensor, "*axes width"]:
        gate, up = self.project(x, self.gate_proj, self.up_proj)
        return self.down_proj(F.silu(gate) * up)  # type: ignore[no-any-return]


class Perceptron(nn.Module):
    """down(activation(up(x))) with GELU (GPT-2) or ReLU^2 (So et al. 2021, https://arxiv.org/abs/2109.08668)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.up_proj = Linear(config.d_model, config.d_ff, bias=config.biases)
        self.down_proj = Linear(config.d_ff, config.d_model, bias=config.biases)
        self.squared = config.activation == "relu2"

    def forward(self, x: Float[Tensor, "*axes width"]) -> Float[Tensor, "*axes width"]:
        up = self.up_proj(x)
        active = F.relu(up).square() if self.squared else F.gelu(up, approximate="tanh")
        return self.down_proj(active)  # type: ignore[no-any-return]


def feed_forward(config: DecoderConfig) -> nn.Module:
    """The feed-forward that `config` asks for. Several shared experts are one wide one: the same arithmetic."""
    if config.moe is None:
        return SwiGLU(config, config.d_ff) if config.activation == "swiglu" else Perceptron(config)
    width = config.moe.n_shared_experts * config.moe.d_expert
    return SparseFeedForward(config, config.moe, shared=SwiGLU(config, width) if width else None)


class Layer(nn.Module):
    """Attention, then feed-forward, each added to the stream; the norms stand before or after them."""

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        if config.norm_at == "input":
            self.input_layernorm = norm(config, config.d_model)
        self.self_attn = Attention(config, index)
        self.post_attention_layernorm = norm(config, config.d_model)
        self.mlp = feed_forward(config)
        if config.norm_at == "output":
            self.post_feedforward_layernorm = norm(config, config.d_model)
        self.norm_at = config.norm_at
        self.residual_scalar = nn.Parameter(torch.ones(1)) if config.residual_scalars else None
        self.embedding_scalar = nn.Parameter(torch.zeros(1)) if config.embedding_scalars else None

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        turn: CosSin | None,
        seen: Any,
        remember: Remember | None = None,
        first: Float[Tensor, "batch time width"] | None = None,
        token_values: Float[Tensor, "batch time kv_width"] | None = None,
    ) -> tuple[Float[Tensor, "batch time width"], Routing | None]:
        """The stream after this layer, and how its router decided, if it has one.

        first: the stream as it was after the embedding; the rest as in `Attention`.
        """
        if self.residual_scalar is not None:
            x = x * self.residual_scalar.to(x.dtype)
        if self.embedding_scalar is not None:
            assert first is not None
            x = x + first * self.embedding_scalar.to(x.dtype)
        if self.norm_at == "input":
            x = x + self.self_attn(self.input_layernorm(x), turn, seen, remember, token_values)
            fed, routing = self._fed(self.post_attention_layernorm(x))
            return x + fed, routing
        x = x + self.post_attention_layernorm(self.self_attn(x, turn, seen, remember, token_values))
        fed, routing = self._fed(x)
        return x + self.post_feedforward_layernorm(fed), routing

    def plainly(self, *arguments: Any) -> tuple[Float[Tensor, "batch time width"], Routing | None]:
        """`forward`, not compiled."""
        return self.forward(*arguments)

    def _fed(
        self, x: Float[Tensor, "batch time width"]
    ) -> tuple[Float[Tensor, "batch time width"], Routing | None]:
        out = self.mlp(x)
        return out if isinstance(self.mlp, SparseFeedForward) else (out, None)
