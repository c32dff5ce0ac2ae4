"""A decoder's forward pass as the papers write it, in float64: the reference for the fast one.

in:  weights under our names, the config, ids, the document of every position
out: hidden vectors [batch, time, d_model], logits [batch, time, vocab_size]

Nothing of `model/` is used but the config's numbers. Slow and plain on purpose: no caches, no chunks, no fused
kernels; masks are made by looking at every pair of positions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from groundup.doctor.rope_reference import stretched
from groundup.model.config import DecoderConfig, RopeScaling

Weights = dict[str, Tensor]
Segments = Sequence[Sequence[int]]
"""The document of each position, by row; -1 is padding."""


@dataclass(frozen=True)
class Routed:
    """What a router thought of every expert, and which it chose."""

    probs: Float[Tensor, "batch time experts"]
    chosen: Int[Tensor, "batch time per_token"]


def may_see(segments: Segments, window: int = 0) -> Bool[Tensor, "batch time time"]:
    """Every position sees itself, and what stands before it in the same document, `window` positions in all."""
    batch, time = len(segments), len(segments[0])
    mask = torch.zeros(batch, time, time, dtype=torch.bool)
    for row, documents in enumerate(segments):
        for query in range(time):
            for key in range(query + 1):
                together = documents[query] == documents[key] and documents[query] >= 0
                near = window == 0 or query - key < window
                mask[row, query, key] = (together and near) or query == key
    return mask


def hidden(
    weights: Weights,
    config: DecoderConfig,
    ids: Int[Tensor, "batch time"],
    segments: Segments,
    routed: list[Routed] | None = None,
) -> Float[Tensor, "batch time width"]:
    """The output of the last norm. `routed` is given what every router decided."""
    x = weights["model.embed_tokens.weight"][ids]
    if config.positions == "learned":
        x = x + weights["model.embed_positions.weight"][places(segments)]
    embedded = x
    masks = {window: may_see(segments, window) for window in set(config.windows) | {0}}
    for number in range(config.n_layers):
        layer = _below(weights, f"model.layers.{number}.")
        if config.residual_scalars:
            x = x * layer["residual_scalar"]
        if config.embedding_scalars:
            x = x + layer["embedding_scalar"] * embedded
        values = weights.get(f"model.value_embeds.{number}.weight")
        spoken = None if values is None else values[ids]
        window = config.windows[number] if config.windows else 0
        scaling = None if window else config.rope_scaling
        if config.norm_at == "input":
            normed = norm(layer, "input_layernorm", config, x)
            x = x + attention(layer, config, normed, masks[window], spoken, scaling)
            x = x + feed_forward(layer, config, norm(layer, "post_attention_layernorm", config, x), routed)
        else:
            mixed = attention(layer, config, x, masks[window], spoken, scaling)
            x = x + norm(layer, "post_attention_layernorm", config, mixed)
            x = x + norm(layer, "post_feedforward_layernorm", config, feed_forward(layer, config, x, routed))
    return norm(weights, "model.norm", config, x)


def places(segments: Segments) -> Int[Tensor, "batch time"]:
    """How far each position is from where its document begins."""
    found = []
    for row in segments:
        since = 0
        counted = []
        for number, document in enumerate(row):
            since = since + 1 if number and row[number - 1] == document else 0
            counted.append(since)
        found.append(counted)
    return torch.tensor(found)


def logits(
    weights: Weights, config: DecoderConfig, ids: Int[Tensor, "batch time"], segments: Segments
) -> Float[Tensor, "batch time vocab"]:
    """Scores of every token as the next one."""
    head = weights["model.embed_tokens.weight" if config.tie_embeddings else "lm_head.weight"]
    return capped(hidden(weights, config, ids, segments) @ head.T, config.logit_softcap)


def capped(scores: Float[Tensor, "*shape"], cap: float) -> Float[Tensor, "*shape"]:
    """cap tanh(score / cap), tanh(z) = (e^2z - 1) / (e^2z + 1); cap 0 = none (arXiv:2408.00118)."""
    if cap == 0:
        return scores
    powers = torch.exp(2 * scores / cap)
    return cap * (powers - 1) / (powers + 1)


def norm(weights: Weights, name: str, config: DecoderConfig, x: Tensor) -> Tensor:
    """The norm called `name`: RMSNorm (arXiv:1910.07467), or LayerNorm (arXiv:1607.06450) with its shift."""
    weight = weights[f"{name}.weight"]
    if config.norm == "rms":
        return rms(x, weight, config.norm_eps)
    centred = x - x.sum(dim=-1, keepdim=True) / x.shape[-1]
    return rms(centred, weight, config.norm_eps) + weights[f"{name}.bias"]


def rms(
    x: Float[Tensor, "*axes dim"], weight: Float[Tensor, " dim"], eps: float
) -> Float[Tensor, "*axes dim"]:
    """x over its root mean square, times a weight."""
    return x / torch.sqrt((x * x).sum(dim=-1, keepdim=True) / x.shape[-1] + eps) * weight


def product(layer: Weights, name: str, x: Float[Tensor, "*axes inner"]) -> Float[Tensor, "*axes outer"]:
    """x W^T, and the bias where there is one."""
    made = torch.einsum("...i,oi->...o", x, layer[f"{name}.weight"])
    return made + layer[f"{name}.bias"] if f"{name}.bias" in layer else made


def attention(
    layer: Weights,
    config: DecoderConfig,
    x: Float[Tensor, "batch time width"],
    mask: Bool[Tensor, "batch time time"],
    spoken: Float[Tensor, "batch time kv_width"] | None = None,
    scaling: RopeScaling | None = None,
) -> Float[Tensor, "batch time width"]:
    """Grouped-query attention; queries and keys normed per head or over all heads, then turned.

    spoken: what a value embedding says of each token; it joins the values by a gate per head, 2 sigmoid(W x), that
    reads the first numbers of x.
    """

    def heads(name: str) -> Float[Tensor, "batch time heads dim"]:
        made = product(layer, f"self_attn.{name}_proj", x)
        if name != "v" and config.qk_norm == "width":
            made = norm(layer, f"self_attn.{name}_norm", config, made)
        made = made.view(*x.shape[:2], -1, config.head_dim)
        if name != "v" and config.qk_norm == "head":
            made = norm(layer, f"self_attn.{name}_norm", config, made)
        if name == "v" or config.positions == "learned":
            return made
        return turned(made, torch.arange(x.shape[1]), config.rope_theta, scaling)

    q, k, v = heads("q"), heads("k"), heads("v")
    if spoken is not None:
        read = layer["self_attn.value_gate.weight"].shape[1]
        gate = 2 / (1 + torch.exp(-product(layer, "self_attn.value_gate", x[..., :read])))
        v = v + gate[..., None] * spoken.view(v.shape)
    return product(layer, "self_attn.o_proj", attend(q, k, v, mask).flatten(2))


def attend(
    q: Float[Tensor, "batch time heads dim"],
    k: Float[Tensor, "batch keys kv_heads dim"],
    v: Float[Tensor, "batch keys kv_heads dim"],
    mask: Bool[Tensor, "batch time keys"],
) -> Float[Tensor, "batch time heads dim"]:
    """softmax(q . k / sqrt(dim)) v over the keys that may be seen; head h uses key/value head h // group."""
    group = q.shape[2] // k.shape[2]
    serving = torch.arange(q.shape[2]) // group
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k[:, :, serving]) / q.shape[3] ** 0.5
    powers = torch.exp(scores - scores.amax(dim=-1, keepdim=True).detach()) * mask[:, None]
    return torch.einsum("bhqk,bkhd->bqhd", powers / powers.sum(dim=-1, keepdim=True), v[:, :, serving])


def turned(
    x: Float[Tensor, "batch time heads dim"],
    positions: Int[Tensor, " time"],
    theta: float,
    scaling: RopeScaling | None = None,
) -> Float[Tensor, "batch time heads dim"]:
    """Numbers i and i + dim/2 as one complex number, times e^(i position / theta^(2i/dim)) (arXiv:2104.09864)."""
    half = x.shape[-1] // 2
    rates, factor = stretched(half, theta, scaling, int(positions.max()))
    angle = positions.double()[:, None] * rates
    spun = factor * torch.complex(x[..., :half], x[..., half:]) * torch.exp(1j * angle)[:, None]
    return torch.cat((spun.real, spun.imag), dim=-1)


def feed_forward(
    layer: Weights,
    config: DecoderConfig,
    x: Float[Tensor, "batch time width"],
    routed: list[Routed] | None = None,
) -> Float[Tensor, "batch time width"]:
    """SwiGLU (arXiv:2002.05202), GELU by its tanh (arXiv:1606.08415), ReLU^2 (arXiv:2109.08668), or experts."""
    if config.moe is not None:
        out, decided = experts(layer, config, x)
        if routed is not None:
            routed.append(decided)
        return out
    if config.activation == "swiglu":
        return swiglu(layer, "mlp", x)
    up = product(layer, "mlp.up_proj", x)
    if config.activation == "relu2":
        active = torch.where(up > 0, up, 0.0) ** 2
    else:
        active = up / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)))
    return product(layer, "mlp.down_proj", active)


def swiglu(layer: Weights, name: str, x: Float[Tensor, "*axes width"]) -> Float[Tensor, "*axes width"]:
    """down(silu(gate(x)) * up(x)), silu(z) = z / (1 + e^-z)."""
    gate = product(layer, f"{name}.gate_proj", x)
    active = gate / (1 + torch.exp(-gate)) * product(layer, f"{name}.up_proj", x)
    return product(layer, f"{name}.down_proj", active)


def experts(
    layer: Weights, config: DecoderConfig, x: Float[Tensor, "batch time width"]
) -> tuple[Float[Tensor, "batch time width"], Routed]:
    """Token by token: its best experts by softmax (arXiv:1701.06538), and those that every token uses.

    A bias, where there is one, is added for the choice alone (arXiv:2408.15664).
    """
    assert config.moe is not None
    powers = torch.exp(x @ layer["mlp.gate.weight"].T)
    probs = powers / powers.sum(dim=-1, keepdim=True)
    scores = probs + layer["mlp.gate.bias"] if "mlp.gate.bias" in layer else probs
    chosen = scores.detach().argsort(dim=-1, descending=True)[..., : config.moe.n_experts_per_token]
    rows = []
    for row in range(x.shape[0]):
        for t in range(x.shape[1]):
            picked = chosen[row, t].tolist()
            whole = probs[row, t, picked].sum() if config.moe.normalize else 1.0
            parts = [
                probs[row, t, one] / whole * _expert(layer, one, config.moe.d_expert, x[row, t])
                for one in picked
            ]
            rows.append(torch.stack(parts).sum(dim=0))
    out = torch.stack(rows).view(x.shape)
    if config.moe.n_shared_experts:
        out = out + swiglu(layer, "mlp.shared_experts", x)
    return out, Routed(probs, chosen)


def _expert(layer: Weights, number: int, width: int, x: Float[Tensor, " width"]) -> Float[Tensor, " width"]:
    """SwiGLU of one expert; its gate and up matrices lie in one."""
    both = layer["mlp.experts.gate_up_proj"][number]
    names = {
        "gate_proj": both[:width],
        "up_proj": both[width:],
        "down_proj": layer["mlp.experts.down_proj"][number],
    }
    return swiglu({f"e.{name}.weight": matrix for name, matrix in names.items()}, "e", x)


def balance(routed: Sequence[Routed], segments: Segments, row_weights: Sequence[float]) -> Float[Tensor, ""]:
    """Sum over layers and rows of weight * experts * sum of share(e) * opinion(e) (arXiv:2101.03961).

    share: the part of a row's choices that fell on e; opinion: its mean probability; both over real tokens.
    """
    found = []
    for decided in routed:
        n_experts = decided.probs.shape[-1]
        for row, weight in enumerate(row_weights):
            real = [t for t, document in enumerate(segments[row]) if document >= 0]
            for e in range(n_experts):
                picked = sum(e in decided.chosen[row, t].tolist() for t in real)
                share = picked / (len(real) * decided.chosen.shape[-1])
                opinion = torch.stack([decided.probs[row, t, e] for t in real]).mean()
                found.append(weight * n_experts * share * opinion)
    return torch.stack(found).sum()


def _below(weights: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
