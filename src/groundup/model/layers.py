"""The parts of a decoder layer: norms, attention, feed-forward, and the layer made of them.

in:  the residual stream [batch, time, d_model] in the compute dtype
out: the stream after the layer

Parameters are fp32 and cast to the dtype of the stream where they are used; norms and softmax are computed in fp32.
Nothing here depends on training, caches or devices: attributes such as `attend` and `op` are replaced from outside.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from groundup.model.attention import FUSED, Attend, attend_fused
from groundup.model.config import GATE_CHANNELS, DecoderConfig
from groundup.model.linear import Linear, project
from groundup.model.moe import Routing, SparseFeedForward
from groundup.model.rotary import CosSin, apply_rope

CacheUpdate = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor, Tensor]]
"""(new keys, new values, window) -> all keys, all values, mask: `KVCache.cache_update` of one layer."""
NormFn = Callable[[Tensor, Tensor, float], Tensor]
"""(x, weight, eps) -> normed x"""
LayerOutput = tuple[Float[Tensor, "batch time width"], Routing | None]
"""The stream after a layer, and its routing where it has experts."""


def rms_norm(
    x: Float[Tensor, "*axes dim"], weight: Float[Tensor, " dim"], eps: float
) -> Float[Tensor, "*axes dim"]:
    """x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467)."""
    x_fp32 = x.float()
    scale = torch.rsqrt(x_fp32.pow(2).mean(dim=-1, keepdim=True) + eps)
    return (x_fp32 * scale * weight).to(x.dtype)


class RMSNorm(nn.Module):
    """RMS norm with a learned scale per channel, initialized to one. `normalize` may be replaced from outside."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps
        self.normalize: NormFn = rms_norm

    def forward(self, x: Float[Tensor, "*axes dim"]) -> Float[Tensor, "*axes dim"]:
        return self.normalize(x, self.weight, self.eps)


class LayerNorm(nn.LayerNorm):
    """Mean 0 and variance 1, then a learned scale and shift, in fp32 (Ba et al. 2016, https://arxiv.org/abs/1607.06450)."""

    def forward(self, x: Float[Tensor, "*axes dim"]) -> Float[Tensor, "*axes dim"]:
        return super().forward(x.float()).to(x.dtype)


def norm(config: DecoderConfig, dim: int) -> nn.Module:
    """The norm module of `config`."""
    return LayerNorm(dim, config.norm_eps) if config.norm == "layer" else RMSNorm(dim, config.norm_eps)


class Attention(nn.Module):
    """Grouped-query attention. `attend` and the ops of the projections may be replaced from outside."""

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        width, dim = config.d_model, config.head_dim
        self.heads, self.kv_heads, self.dim = config.n_heads, config.n_kv_heads, dim
        self.window = config.window(index)
        self.q_proj = Linear(width, config.n_heads * dim, bias=bool(config.biases))
        self.k_proj = Linear(width, config.n_kv_heads * dim, bias=bool(config.biases))
        self.v_proj = Linear(width, config.n_kv_heads * dim, bias=bool(config.biases))
        self.o_proj = Linear(config.n_heads * dim, width, bias=config.biases is True)
        self.norm_each_head = config.qk_norm == "head"
        if config.qk_norm != "none":
            heads = (1, 1) if self.norm_each_head else (config.n_heads, config.n_kv_heads)
            self.q_norm, self.k_norm = (norm(config, count * dim) for count in heads)
        else:
            self.q_norm, self.k_norm = nn.Identity(), nn.Identity()
        if config.has_value_embedding(index):
            self.value_gate = Linear(min(GATE_CHANNELS, width), config.n_kv_heads, bias=False)
        self.attend: Attend = FUSED.attend

    @property
    def input_projections(self) -> tuple[Linear, ...]:
        """The maps that read the stream."""
        return self.q_proj, self.k_proj, self.v_proj

    @property
    def output_projection(self) -> Linear:
        """The map that writes to the stream."""
        return self.o_proj

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        cos_sin: CosSin | None,
        mask: Any,
        cache_update: CacheUpdate | None = None,
        token_values: Float[Tensor, "batch time kv_width"] | None = None,
    ) -> Float[Tensor, "batch time width"]:
        """Attention output of every position.

        cos_sin: rotary cosines and sines of the positions; None where positions are in the stream already.
        mask: from the kernel's `make_mask`; not used with a cache.
        cache_update: appends keys and values to the cache and returns all of them and their mask.
        token_values: value embedding of each token.
        """
        q, k, v = project(x, *self.input_projections)
        if self.norm_each_head:
            q, k = self.q_norm(self._heads(q)), self.k_norm(self._heads(k))
        else:
            q, k = self._heads(self.q_norm(q)), self._heads(self.k_norm(k))
        if cos_sin is not None:
            q, k = apply_rope(q, *cos_sin), apply_rope(k, *cos_sin)
        v = self._heads(v)
        if token_values is not None:
            # The gate is initially 1: its weights are initialized to zero.
            gate = 2 * torch.sigmoid(self.value_gate(x[..., :GATE_CHANNELS])).transpose(1, 2)
            v = v + gate[..., None] * self._heads(token_values)
        keys = (k, v, mask) if cache_update is None else cache_update(k, v, self.window)
        attended = self.attend(q, *keys) if cache_update is None else attend_fused(q, *keys)
        output: Tensor = self.o_proj(attended.transpose(1, 2).flatten(2))
        return output

    def _heads(self, x: Float[Tensor, "batch time all"]) -> Float[Tensor, "batch heads time dim"]:
        return x.view(*x.shape[:2], -1, self.dim).transpose(1, 2)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer 2020, https://arxiv.org/abs/2002.05202)."""

    def __init__(self, config: DecoderConfig, width: int) -> None:
        super().__init__()
        self.gate_proj = Linear(config.d_model, width, bias=config.biases is True)
        self.up_proj = Linear(config.d_model, width, bias=config.biases is True)
        self.down_proj = Linear(width, config.d_model, bias=config.biases is True)

    @property
    def input_projections(self) -> tuple[Linear, ...]:
        """The maps that read the stream."""
        return self.gate_proj, self.up_proj

    @property
    def output_projection(self) -> Linear:
        """The map that writes to the stream."""
        return self.down_proj

    def forward(self, x: Float[Tensor, "*axes width"]) -> Float[Tensor, "*axes width"]:
        gate, up = project(x, *self.input_projections)
        return self.down_proj(F.silu(gate) * up)  # type: ignore[no-any-return]


class Perceptron(nn.Module):
    """down(activation(up(x))) with GELU (GPT-2) or ReLU^2 (So et al. 2021, https://arxiv.org/abs/2109.08668)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.up_proj = Linear(config.d_model, config.d_ff, bias=config.biases is True)
        self.down_proj = Linear(config.d_ff, config.d_model, bias=config.biases is True)
        self.squared = config.activation == "relu2"

    def forward(self, x: Float[Tensor, "*axes width"]) -> Float[Tensor, "*axes width"]:
        up = self.up_proj(x)
        active = F.relu(up).square() if self.squared else F.gelu(up, approximate="tanh")
        return self.down_proj(active)  # type: ignore[no-any-return]


def feed_forward(config: DecoderConfig) -> nn.Module:
    """The feed-forward module of `config`. Several shared experts are one SwiGLU of their total width."""
    if config.moe is None:
        return SwiGLU(config, config.d_ff) if config.activation == "swiglu" else Perceptron(config)
    width = config.moe.n_shared_experts * config.moe.d_expert
    return SparseFeedForward(config, config.moe, shared=SwiGLU(config, width) if width else None)


def no_checkpointing(compute: Callable[..., LayerOutput], *arguments: Any) -> LayerOutput:
    """Call `compute` and keep all activations for the backward pass."""
    return compute(*arguments)


class Layer(nn.Module):
    """Attention, then feed-forward, each added to the stream; norms before or after them.

    `checkpointing` may be replaced from outside: (compute, *arguments) -> what compute returns.
    """

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
        self.checkpointing = no_checkpointing

    def forward(self, *arguments: Any) -> LayerOutput:
        """`compute` with activation checkpointing."""
        return self.checkpointing(self.compute, *arguments)

    def forward_uncompiled(self, *arguments: Any) -> LayerOutput:
        """`compute`, not compiled: for scoring and generation, whose shapes vary."""
        return self.compute(*arguments)

    def compute(
        self,
        x: Float[Tensor, "batch time width"],
        cos_sin: CosSin | None,
        mask: Any,
        cache_update: CacheUpdate | None = None,
        embedded: Float[Tensor, "batch time width"] | None = None,
        token_values: Float[Tensor, "batch time kv_width"] | None = None,
    ) -> LayerOutput:
        """The stream after this layer, and the routing of its experts.

        embedded: the stream after the embedding; the rest as in `Attention`.
        """
        if self.residual_scalar is not None:
            x = x * self.residual_scalar.to(x.dtype)
        if self.embedding_scalar is not None:
            assert embedded is not None
            x = x + embedded * self.embedding_scalar.to(x.dtype)
        if self.norm_at == "input":
            x = x + self.self_attn(self.input_layernorm(x), cos_sin, mask, cache_update, token_values)
            update, routing = self._feed_forward(self.post_attention_layernorm(x))
            return x + update, routing
        x = x + self.post_attention_layernorm(self.self_attn(x, cos_sin, mask, cache_update, token_values))
        update, routing = self._feed_forward(x)
        return x + self.post_feedforward_layernorm(update), routing

    def _feed_forward(self, x: Float[Tensor, "batch time width"]) -> LayerOutput:
        output = self.mlp(x)
        return output if isinstance(self.mlp, SparseFeedForward) else (output, None)
