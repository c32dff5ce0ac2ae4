"""Reference forward pass of the decoder: the papers' formulas in float64.

in:  weights by parameter name, the config, ids, the document of every position
out: hidden vectors [batch, time, d_model], logits [batch, time, vocab_size]

Of `model/` only the config is used. Deliberately slow and simple: no caches, chunks or fused kernels; masks are
computed for every pair of positions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from groundup.doctor.rope_reference import scaled_frequencies
from groundup.model.config import DecoderConfig, RopeScaling

Weights = dict[str, Tensor]
Segments = Sequence[Sequence[int]]
"""The document of each position, by row; -1 is padding."""


@dataclass(frozen=True)
class RouterOutput:
    """A router's probability of every expert, and the chosen experts."""

    probs: Float[Tensor, "batch time experts"]
    chosen: Int[Tensor, "batch time per_token"]


def attention_mask(segments: Segments, window: int = 0) -> Bool[Tensor, "batch time time"]:
    """Causal mask within documents: each position sees itself and up to `window` - 1 earlier ones (0 = all)."""
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
    router_outputs: list[RouterOutput] | None = None,
) -> Float[Tensor, "batch time width"]:
    """The output of the last norm. `router_outputs` collects the output of every router."""
    x = weights["model.embed_tokens.weight"][ids]
    if config.positions == "learned":
        x = x + weights["model.embed_positions.weight"][document_positions(segments)]
    embedded = x
    masks = {window: attention_mask(segments, window) for window in set(config.windows) | {0}}
    for number in range(config.n_layers):
        layer = _submodule(weights, f"model.layers.{number}.")
        if config.residual_scalars:
            x = x * layer["residual_scalar"]
        if config.embedding_scalars:
            x = x + layer["embedding_scalar"] * embedded
        values = weights.get(f"model.value_embeds.{number}.weight")
        value_embedding = None if values is None else values[ids]
        window = config.windows[number] if config.windows else 0
        scaling = None if window else config.rope_scaling
        if config.norm_at == "input":
            normed = norm(layer, "input_layernorm", config, x)
            x = x + attention(layer, config, normed, masks[window], value_embedding, scaling)
            x = x + feed_forward(
                layer, config, norm(layer, "post_attention_layernorm", config, x), router_outputs
            )
        else:
            mixed = attention(layer, config, x, masks[window], value_embedding, scaling)
            x = x + norm(layer, "post_attention_layernorm", config, mixed)
            x = x + norm(
                layer, "post_feedforward_layernorm", config, feed_forward(layer, config, x, router_outputs)
            )
    return norm(weights, "model.norm", config, x)


def document_positions(segments: Segments) -> Int[Tensor, "batch time"]:
    """The index of each position within its document."""
    rows = []
    for document_row in segments:
        since = 0
        counted = []
        for number, document in enumerate(document_row):
            since = since + 1 if number and document_row[number - 1] == document else 0
            counted.append(since)
        rows.append(counted)
    return torch.tensor(rows)


def logits(
    weights: Weights, config: DecoderConfig, ids: Int[Tensor, "batch time"], segments: Segments
) -> Float[Tensor, "batch time vocab"]:
    """Logits of the next token."""
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
    """RMSNorm: x divided by its root mean square, times a weight."""
    return x / torch.sqrt((x * x).sum(dim=-1, keepdim=True) / x.shape[-1] + eps) * weight


def product(layer: Weights, name: str, x: Float[Tensor, "*axes inner"]) -> Float[Tensor, "*axes outer"]:
    """x W^T, plus the bias if the layer has one."""
    output = torch.einsum("...i,oi->...o", x, layer[f"{name}.weight"])
    return output + layer[f"{name}.bias"] if f"{name}.bias" in layer else output


def attention(
    layer: Weights,
    config: DecoderConfig,
    x: Float[Tensor, "batch time width"],
    mask: Bool[Tensor, "batch time time"],
    value_embedding: Float[Tensor, "batch time kv_width"] | None = None,
    scaling: RopeScaling | None = None,
) -> Float[Tensor, "batch time width"]:
    """Grouped-query attention; queries and keys are normed per head or over all heads, then rotated.

    value_embedding: added to the values with a gate per head, 2 sigmoid(W x), computed from the first channels of x.
    """

    def heads(name: str) -> Float[Tensor, "batch time heads dim"]:
        projected = product(layer, f"self_attn.{name}_proj", x)
        if name != "v" and config.qk_norm == "width":
            projected = norm(layer, f"self_attn.{name}_norm", config, projected)
        projected = projected.view(*x.shape[:2], -1, config.head_dim)
        if name != "v" and config.qk_norm == "head":
            projected = norm(layer, f"self_attn.{name}_norm", config, projected)
        if name == "v" or config.positions == "learned":
            return projected
        return rotated(projected, torch.arange(x.shape[1]), config.rope_theta, scaling)

    q, k, v = heads("q"), heads("k"), heads("v")
    if value_embedding is not None:
        read = layer["self_attn.value_gate.weight"].shape[1]
        gate = 2 / (1 + torch.exp(-product(layer, "self_attn.value_gate", x[..., :read])))
        v = v + gate[..., None] * value_embedding.view(v.shape)
    return product(layer, "self_attn.o_proj", attend(q, k, v, mask).flatten(2))


def attend(
    q: Float[Tensor, "batch time heads dim"],
    k: Float[Tensor, "batch keys kv_heads dim"],
    v: Float[Tensor, "batch keys kv_heads dim"],
    mask: Bool[Tensor, "batch time keys"],
) -> Float[Tensor, "batch time heads dim"]:
    """softmax(q . k / sqrt(dim)) v over unmasked keys; query head h uses key/value head h // group."""
    group = q.shape[2] // k.shape[2]
    serving = torch.arange(q.shape[2]) // group
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k[:, :, serving]) / q.shape[3] ** 0.5
    powers = torch.exp(scores - scores.amax(dim=-1, keepdim=True).detach()) * mask[:, None]
    return torch.einsum("bhqk,bkhd->bqhd", powers / powers.sum(dim=-1, keepdim=True), v[:, :, serving])


def rotated(
    x: Float[Tensor, "batch time heads dim"],
    positions: Int[Tensor, " time"],
    theta: float,
    scaling: RopeScaling | None = None,
) -> Float[Tensor, "batch time heads dim"]:
    """RoPE: channels i and i + dim/2 as a complex number, times e^(i position / theta^(2i/dim)) (arXiv:2104.09864)."""
    half = x.shape[-1] // 2
    frequencies, factor = scaled_frequencies(half, theta, scaling, int(positions.max()))
    angle = positions.double()[:, None] * frequencies
    spun = factor * torch.complex(x[..., :half], x[..., half:]) * torch.exp(1j * angle)[:, None]
    return torch.cat((spun.real, spun.imag), dim=-1)


def feed_forward(
    layer: Weights,
    config: DecoderConfig,
    x: Float[Tensor, "batch time width"],
    router_outputs: list[RouterOutput] | None = None,
) -> Float[Tensor, "batch time width"]:
    """SwiGLU (arXiv:2002.05202), GELU by its tanh (arXiv:1606.08415), ReLU^2 (arXiv:2109.08668), or experts."""
    if config.moe is not None:
        output, router_output = experts(layer, config, x)
        if router_outputs is not None:
            router_outputs.append(router_output)
        return output
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
) -> tuple[Float[Tensor, "batch time width"], RouterOutput]:
    """Mixture of experts, token by token: top-k experts by softmax (arXiv:1701.06538), plus the shared experts.

    A bias affects the choice of experts only (arXiv:2408.15664).
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
    output = torch.stack(rows).view(x.shape)
    if config.moe.n_shared_experts:
        output = output + swiglu(layer, "mlp.shared_experts", x)
    return output, RouterOutput(probs, chosen)


def _expert(layer: Weights, number: int, width: int, x: Float[Tensor, " width"]) -> Float[Tensor, " width"]:
    """SwiGLU of one expert; its gate and up matrices are stored in one tensor."""
    both = layer["mlp.experts.gate_up_proj"][number]
    names = {
        "gate_proj": both[:width],
        "up_proj": both[width:],
        "down_proj": layer["mlp.experts.down_proj"][number],
    }
    return swiglu({f"e.{name}.weight": matrix for name, matrix in names.items()}, "e", x)


def balance(
    router_outputs: Sequence[RouterOutput], segments: Segments, row_weights: Sequence[float]
) -> Float[Tensor, ""]:
    """Load-balancing loss: sum over layers and rows of weight * experts * sum of share(e) * mean_prob(e).

    share: the fraction of a row's choices that are e; mean_prob: its mean router probability; both over tokens that
    are not padding (arXiv:2101.03961).
    """
    terms = []
    for router_output in router_outputs:
        n_experts = router_output.probs.shape[-1]
        for row, weight in enumerate(row_weights):
            real = [t for t, document in enumerate(segments[row]) if document >= 0]
            for e in range(n_experts):
                picked = sum(e in router_output.chosen[row, t].tolist() for t in real)
                share = picked / (len(real) * router_output.chosen.shape[-1])
                mean_prob = torch.stack([router_output.probs[row, t, e] for t in real]).mean()
                terms.append(weight * n_experts * share * mean_prob)
    return torch.stack(terms).sum()


def _submodule(weights: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
