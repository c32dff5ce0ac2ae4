"""The pieces of a decoder: norm, attention, feed-forward, and the layer made of them.

in:  the residual stream [batch, time, d_model] in the compute dtype
out: the same, with what this layer has to add

Parameters are kept in fp32 and cast where they are used, to whatever dtype the stream has; norms and softmax
are computed in fp32. Nothing here knows of training, caches or devices.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from groundup.model.attention import Attend, attend_fused
from groundup.model.config import DecoderConfig
from groundup.model.rotary import rotate

Remember = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""New keys and values -> all keys, all values, mask: one layer's share of a KVCache."""


def rms_norm(
    x: Float[Tensor, "*axes dim"], weight: Float[Tensor, " dim"], eps: float
) -> Float[Tensor, "*axes dim"]:
    """x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467)."""
    wide = x.float()
    scale = torch.rsqrt(wide.pow(2).mean(dim=-1, keepdim=True) + eps)
    return (wide * scale * weight).to(x.dtype)


def linear(x: Float[Tensor, "*axes inner"], *weights: Tensor) -> Float[Tensor, "*axes outer"]:
    """x W^T, with one or more weights [outer_i, inner] stacked, so that several products become one."""
    stacked = weights[0] if len(weights) == 1 else torch.cat(weights)
    return F.linear(x, stacked.to(x.dtype))


class RMSNorm(nn.Module):
    """A norm with a learnt scale per number, which starts at one."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*axes dim"]) -> Float[Tensor, "*axes dim"]:
        return rms_norm(x, self.weight, self.eps)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions and, in Qwen3, a norm on every query and key head."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width, dim = config.d_model, config.head_dim
        self.heads, self.kv_heads, self.dim = config.n_heads, config.n_kv_heads, dim
        self.q_proj = nn.Linear(width, config.n_heads * dim, bias=False)
        self.k_proj = nn.Linear(width, config.n_kv_heads * dim, bias=False)
        self.v_proj = nn.Linear(width, config.n_kv_heads * dim, bias=False)
        self.o_proj = nn.Linear(config.n_heads * dim, width, bias=False)
        self.q_norm = RMSNorm(dim, config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(dim, config.norm_eps) if config.qk_norm else nn.Identity()
        self.attend: Attend = attend_fused

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        cos: Float[Tensor, "rows 1 time dim"],
        sin: Float[Tensor, "rows 1 time dim"],
        mask: Bool[Tensor, "rows 1 time time"] | None,
        remember: Remember | None = None,
    ) -> Float[Tensor, "batch time width"]:
        """`mask` says who sees whom, unless `remember` brings the earlier keys and a mask of its own."""
        batch, time, _ = x.shape
        stacked = linear(x, self.q_proj.weight, self.k_proj.weight, self.v_proj.weight)
        heads = stacked.view(batch, time, -1, self.dim).transpose(1, 2)
        q, k, v = torch.split(heads, [self.heads, self.kv_heads, self.kv_heads], dim=1)
        q, k = rotate(self.q_norm(q), cos, sin), rotate(self.k_norm(k), cos, sin)
        if remember is None:
            assert mask is not None
            out = self.attend(q, k, v, mask)
        else:
            out = attend_fused(q, *remember(k, v))
        return linear(out.transpose(1, 2).reshape(batch, time, -1), self.o_proj.weight)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer 2020, https://arxiv.org/abs/2002.05202)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.up_proj = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.down_proj = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        gate, up = linear(x, self.gate_proj.weight, self.up_proj.weight).chunk(2, dim=-1)
        return linear(F.silu(gate) * up, self.down_proj.weight)


class Layer(nn.Module):
    """Attention, then feed-forward, each on the normed stream and added to it."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.d_model, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.d_model, config.norm_eps)
        self.mlp = SwiGLU(config)

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        cos: Float[Tensor, "rows 1 time dim"],
        sin: Float[Tensor, "rows 1 time dim"],
        mask: Bool[Tensor, "rows 1 time time"] | None,
        remember: Remember | None = None,
    ) -> Float[Tensor, "batch time width"]:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask, remember)
        fed: Tensor = self.mlp(self.post_attention_layernorm(x))
        return x + fed
