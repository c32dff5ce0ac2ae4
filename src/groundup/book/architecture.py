"""A model's config -> its drawing, and its parameters counted part by part.

in:  the DecoderConfig that pretraining noted
out: `parts_of`, whose rows add up to the model's parameters, `architecture_svg`
"""

from dataclasses import dataclass

from groundup.book.drawing import Drawing
from groundup.model.config import GATE_CHANNELS, DecoderConfig


@dataclass(frozen=True)
class ModelBlock:
    """One kind of weight: how it is shaped, how often it occurs, what it is for."""

    name: str
    shape: str
    each: int
    times: int
    does: str

    @property
    def parameters(self) -> int:
        """Numbers in all its copies."""
        return self.each * self.times


def parts_of(config: DecoderConfig) -> tuple[ModelBlock, ...]:
    """Every weight of the model, in the order in which the data meets them."""
    d, n = config.d_model, config.n_layers
    parts = [_matrix("token embedding", config.vocab_size, d, 1, "a vector for every token")]
    if config.positions == "learned":
        parts.append(_matrix("position embedding", config.max_seq_len, d, 1, "and one for every position"))
    parts += _attention_parts(config)
    parts += _feed_forward_parts(config)
    inner = {
        "none": 0,
        "head": 2 * config.head_dim,
        "width": (config.n_heads + config.n_kv_heads) * config.head_dim,
    }
    numbers = 2 if config.norm == "layer" else 1
    each = numbers * (2 * d + inner[config.qk_norm])
    parts.append(
        ModelBlock("norms in a block", f"{numbers} × {each // numbers:,}", each, n, "keep the scale steady")
    )
    scalars = config.residual_scalars + config.embedding_scalars
    if scalars:
        parts.append(
            ModelBlock("scalars in a block", f"{scalars}", scalars, n, "weigh the stream and the embedding")
        )
    parts.append(ModelBlock("final norm", f"{numbers} × {d:,}", numbers * d, 1, "before the last step"))
    if not config.tie_embeddings:
        parts.append(_matrix("output head", d, config.vocab_size, 1, "a score for every next token"))
    return tuple(parts)


def _matrix(name: str, rows: int, columns: int, times: int, does: str, biases: int = 0) -> ModelBlock:
    shape = f"{rows:,} × {columns:,}" + (f" + {biases:,}" if biases else "")
    return ModelBlock(name, shape, rows * columns + biases, times, does)


def _attention_parts(config: DecoderConfig) -> list[ModelBlock]:
    d, n = config.d_model, config.n_layers
    queries, keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    rows = [
        ("query", d, queries, "what each position looks for"),
        ("key", d, keys, "what each position offers"),
        ("value", d, keys, "what is passed on where they meet"),
        ("attention output", queries, d, "mixes the heads"),
    ]
    parts = [
        _matrix(name, inner, outer, n, does, outer if config.biases else 0)
        for name, inner, outer, does in rows
    ]
    with_values = sum(config.has_value_embedding(layer) for layer in range(n))
    if with_values:
        parts.append(
            _matrix("value embedding", config.vocab_size, keys, with_values, "what a token says by itself")
        )
        gate = min(GATE_CHANNELS, d)
        parts.append(_matrix("its gate", gate, config.n_kv_heads, with_values, "how much of it is heard"))
    return parts


def _feed_forward_parts(config: DecoderConfig) -> list[ModelBlock]:
    d, n = config.d_model, config.n_layers
    ups = 2 if config.activation == "swiglu" else 1
    name = "gate and up" if ups == 2 else "up"
    if config.moe is None:
        wide = config.d_ff
        biases = (ups * wide, d) if config.biases else (0, 0)
        return [
            _matrix(f"MLP {name}", ups * d, wide, n, "widens each position", biases[0]),
            _matrix("MLP down", wide, d, n, "and narrows it again", biases[1]),
        ]
    moe, wide = config.moe, config.moe.d_expert
    parts = [
        _matrix("router", d, moe.n_experts, n, "chooses experts for each position"),
        _matrix(f"expert's {name}", ups * d, wide, n * moe.n_experts, "widens the positions sent to it"),
        _matrix("expert's down", wide, d, n * moe.n_experts, "and narrows them again"),
    ]
    if moe.n_shared_experts:
        shared = moe.n_shared_experts * wide
        parts.append(_matrix("shared experts", (ups + 1) * d, shared, n, "what every position goes through"))
    return parts


def architecture_svg(config: DecoderConfig) -> str:
    """The decoder from text to next token, one block opened."""
    picture = Drawing(640, 590)
    parts = {part.name: part for part in parts_of(config)}
    _box(picture, 2, "text", "cut into tokens", "card")
    picture.line(170, 38, 170, 54, arrow=True)
    embedding = f"{config.vocab_size:,} tokens × {config.d_model:,} = {parts['token embedding'].parameters:,}"
    _box(picture, 54, "embedding", f"a vector of {config.d_model:,} for each token", "soft-blue", embedding)
    _frame(picture, config)
    _attention(picture, config)
    _mlp(picture, config)
    picture.line(170, 466, 170, 496, arrow=True)
    _box(
        picture,
        496,
        "norm and output head",
        f"{config.vocab_size:,} scores",
        "soft-blue",
        _head_note(config, parts),
    )
    picture.line(170, 532, 170, 548, arrow=True)
    _box(picture, 548, "next token", "drawn by probability", "card")
    return picture.svg()


def _head_note(config: DecoderConfig, parts: dict[str, ModelBlock]) -> str:
    if config.tie_embeddings:
        return "shares the embedding's numbers"
    return f"{config.d_model:,} × {config.vocab_size:,} = {parts['output head'].parameters:,}"


def _box(picture: Drawing, y: float, title: str, note: str, fill: str, right: str = "") -> None:
    picture.rect(50, y, 240, 36, fill, "faint")
    picture.text(170, y + 16, title, 13.5, anchor="middle")
    picture.text(170, y + 30, note, 11, "muted", "middle", italic=True)
    if right:
        picture.text(350, y + 22, right, 12, "muted")


def _frame(picture: Drawing, config: DecoderConfig) -> None:
    """The block's outline, its residual stream and how often it is repeated."""
    picture.line(170, 92, 170, 140, arrow=True)
    picture.rect(14, 114, 612, 352, "page", "muted", radius=8)
    picture.rect(520, 104, 92, 22, "orange", radius=11)
    picture.text(566, 119, f"× {config.n_layers} blocks", 12.5, "page", "middle", bold=True)
    for top, bottom in ((128, 278), (294, 444)):
        picture.path(f"M170 {top}H34V{bottom}H158", stroke="muted")
        picture.path(f"M153 {bottom - 3.5}L158 {bottom}L153 {bottom + 3.5}", stroke="muted")
        picture.circle(170, bottom, 10, "page", "muted")
        picture.text(170, bottom + 5, "+", 16, "ink", "middle")
    picture.line(170, 288, 170, 306, arrow=True)
    picture.line(170, 454, 170, 466)


def _attention(picture: Drawing, config: DecoderConfig) -> None:
    """Norm, attention and its heads: every key-value head under the query heads that share it."""
    _inner(picture, 140, "norm", "soft-green", 22)
    picture.line(170, 162, 170, 178, arrow=True)
    _inner(picture, 178, "attention", "soft-orange", 68)
    picture.text(170, 220, "each token looks back", 11, "muted", "middle", italic=True)
    picture.text(170, 234, "at those before it", 11, "muted", "middle", italic=True)
    picture.line(170, 246, 170, 268, arrow=True)
    group = max(config.n_heads // config.n_kv_heads, 1)
    shown = min(config.n_heads, 24)
    step = min(26.0, 250 / shown)
    for head in range(shown):
        x = 350 + head * step
        picture.rect(x, 178, step - 4, 20, "blue", radius=3)
        if head % group == 0:
            span = min(group, shown - head) * step - 4
            picture.rect(x, 206, span, 20, "orange", radius=3)
    more = f" ({shown} drawn)" if shown < config.n_heads else ""
    picture.text(350, 170, f"{config.n_heads} query heads of {config.head_dim}{more}", 12, "blue")
    picture.text(350, 242, f"{config.n_kv_heads} key and value heads", 12, "orange")
    picture.text(350, 260, _what_happens_to_queries(config), 11, "muted", italic=True)


def _what_happens_to_queries(config: DecoderConfig) -> str:
    if config.positions == "learned":
        return "positions are in the stream already"
    if config.qk_norm == "none":
        return "positions are rotated into queries and keys"
    return "queries and keys are normed, positions rotated in"


def _mlp(picture: Drawing, config: DecoderConfig) -> None:
    """Norm, MLP and its widening, to scale."""
    _inner(picture, 306, "norm", "soft-green", 22)
    picture.line(170, 328, 170, 344, arrow=True)
    _inner(picture, 344, _mlp_name(config), "soft-violet", 68)
    picture.text(170, 386, "each token is worked on", 11, "muted", "middle", italic=True)
    picture.text(170, 400, "by itself", 11, "muted", "middle", italic=True)
    picture.line(170, 412, 170, 434, arrow=True)
    full = 250.0
    narrow = full * min(config.d_model / max(_wide(config), 1), 1)
    left, right = 350 + (full - narrow) / 2, 350 + (full + narrow) / 2
    picture.path(f"M{left} 344H{right}L600 364V384L{right} 404H{left}L350 384V364Z", "soft-violet", "violet")
    picture.text(475, 338, f"{config.d_model:,} wide", 12, "violet", "middle")
    picture.text(475, 378, f"{_wide(config):,}", 12.5, "violet", "middle")
    picture.text(475, 420, f"{config.d_model:,}", 12, "violet", "middle")


def _wide(config: DecoderConfig) -> int:
    return config.d_ff if config.moe is None else config.moe.d_expert


def _mlp_name(config: DecoderConfig) -> str:
    if config.moe is not None:
        return f"MLP: {config.moe.n_experts_per_token} of {config.moe.n_experts} experts"
    return f"MLP ({ {'swiglu': 'SwiGLU', 'gelu': 'GELU', 'relu2': 'ReLU²'}[config.activation] })"


def _inner(picture: Drawing, y: float, title: str, fill: str, height: float) -> None:
    picture.rect(75, y, 190, height, fill, "faint")
    picture.text(170, y + (16 if height < 40 else 22), title, 13, anchor="middle")
