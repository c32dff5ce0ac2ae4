"""A model's config -> a drawing of the architecture and a table of its parameters.

in:  the DecoderConfig of the pretrain artifact
out: `parameter_blocks`, which add up to the model's parameter count; `architecture_svg`
"""

from dataclasses import dataclass

from groundup.book.drawing import Drawing
from groundup.model.config import GATE_CHANNELS, DecoderConfig


@dataclass(frozen=True)
class ModelBlock:
    """One kind of weight: its shape, number of copies and purpose."""

    name: str
    shape: str
    parameters_each: int
    copies: int
    purpose: str

    @property
    def parameters(self) -> int:
        """Parameters of all copies."""
        return self.parameters_each * self.copies


def parameter_blocks(config: DecoderConfig) -> tuple[ModelBlock, ...]:
    """Every weight of the model, in the order of the forward pass."""
    d, n = config.d_model, config.n_layers
    blocks = [_matrix("token embedding", config.vocab_size, d, 1, "one vector per token")]
    if config.positions == "learned":
        blocks.append(_matrix("position embedding", config.max_seq_len, d, 1, "one vector per position"))
    blocks += _attention_parts(config)
    blocks += _feed_forward_parts(config)
    inner = {
        "none": 0,
        "head": 2 * config.head_dim,
        "width": (config.n_heads + config.n_kv_heads) * config.head_dim,
    }
    numbers = 2 if config.norm == "layer" else 1
    each = numbers * (2 * d + inner[config.qk_norm])
    blocks.append(
        ModelBlock("norms in a block", f"{numbers} × {each // numbers:,}", each, n, "normalize activations")
    )
    scalars = config.residual_scalars + config.embedding_scalars
    if scalars:
        blocks.append(
            ModelBlock(
                "scalars in a block", f"{scalars}", scalars, n, "scale the residual stream and the embedding"
            )
        )
    blocks.append(
        ModelBlock("final norm", f"{numbers} × {d:,}", numbers * d, 1, "normalizes before the output head")
    )
    if not config.tie_embeddings:
        blocks.append(_matrix("output head", d, config.vocab_size, 1, "logits of the next token"))
    return tuple(blocks)


def _matrix(name: str, rows: int, columns: int, times: int, purpose: str, biases: int = 0) -> ModelBlock:
    shape = f"{rows:,} × {columns:,}" + (f" + {biases:,}" if biases else "")
    return ModelBlock(name, shape, rows * columns + biases, times, purpose)


QKV = ("query", "key", "value")


def _attention_parts(config: DecoderConfig) -> list[ModelBlock]:
    d, n = config.d_model, config.n_layers
    queries, keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    rows = [
        ("query", d, queries, "what each position attends to"),
        ("key", d, keys, "what each position is matched by"),
        ("value", d, keys, "what attention averages"),
        ("attention output", queries, d, "combines the heads"),
    ]
    blocks = [
        _matrix(
            name,
            inner,
            outer,
            n,
            purpose,
            outer if config.biases is True or (config.biases and name in QKV) else 0,
        )
        for name, inner, outer, purpose in rows
    ]
    with_values = sum(config.has_value_embedding(layer) for layer in range(n))
    if with_values:
        blocks.append(
            _matrix("value embedding", config.vocab_size, keys, with_values, "added to the values, per token")
        )
        gate = min(GATE_CHANNELS, d)
        blocks.append(
            _matrix(
                "value embedding gate", gate, config.n_kv_heads, with_values, "scales the value embedding"
            )
        )
    return blocks


def _feed_forward_parts(config: DecoderConfig) -> list[ModelBlock]:
    d, n = config.d_model, config.n_layers
    ups = 2 if config.activation == "swiglu" else 1
    name = "gate and up" if ups == 2 else "up"
    if config.moe is None:
        wide = config.d_ff
        biases = (ups * wide, d) if config.biases is True else (0, 0)
        return [
            _matrix(f"MLP {name}", ups * d, wide, n, "projects to the hidden width", biases[0]),
            _matrix("MLP down", wide, d, n, "projects back", biases[1]),
        ]
    moe, wide = config.moe, config.moe.d_expert
    blocks = [
        _matrix("router", d, moe.n_experts, n, "selects experts per token"),
        _matrix(f"expert's {name}", ups * d, wide, n * moe.n_experts, "projects to the hidden width"),
        _matrix("expert's down", wide, d, n * moe.n_experts, "projects back"),
    ]
    if moe.n_shared_experts:
        shared = moe.n_shared_experts * wide
        blocks.append(_matrix("shared experts", (ups + 1) * d, shared, n, "applied to every token"))
    return blocks


def architecture_svg(config: DecoderConfig) -> str:
    """The decoder from text to next token, with one block in detail."""
    picture = Drawing(640, 590)
    blocks = {part.name: part for part in parameter_blocks(config)}
    _box(picture, 2, "text", "tokenized", "card")
    picture.line(170, 38, 170, 54, arrow=True)
    embedding = (
        f"{config.vocab_size:,} tokens × {config.d_model:,} = {blocks['token embedding'].parameters:,}"
    )
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
        _head_note(config, blocks),
    )
    picture.line(170, 532, 170, 548, arrow=True)
    _box(picture, 548, "next token", "sampled", "card")
    return picture.svg()


def _head_note(config: DecoderConfig, blocks: dict[str, ModelBlock]) -> str:
    if config.tie_embeddings:
        return "shares the embedding's numbers"
    return f"{config.d_model:,} × {config.vocab_size:,} = {blocks['output head'].parameters:,}"


def _box(picture: Drawing, y: float, title: str, note: str, fill: str, right: str = "") -> None:
    picture.rect(50, y, 240, 36, fill, "faint")
    picture.text(170, y + 16, title, 13.5, anchor="middle")
    picture.text(170, y + 30, note, 11, "muted", "middle", italic=True)
    if right:
        picture.text(350, y + 22, right, 12, "muted")


def _frame(picture: Drawing, config: DecoderConfig) -> None:
    """The block's outline, its residual stream and the number of blocks."""
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
    """Norm, attention and its heads: each key-value head under the query heads that share it."""
    _inner(picture, 140, "norm", "soft-green", 22)
    picture.line(170, 162, 170, 178, arrow=True)
    _inner(picture, 178, "attention", "soft-orange", 68)
    picture.text(170, 220, "each token attends to", 11, "muted", "middle", italic=True)
    picture.text(170, 234, "itself and earlier ones", 11, "muted", "middle", italic=True)
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
    picture.text(350, 260, _position_note(config), 11, "muted", italic=True)


def _position_note(config: DecoderConfig) -> str:
    if config.positions == "learned":
        return "position embeddings are added to the input"
    if config.qk_norm == "none":
        return "rotary positions on queries and keys"
    return "QK norm, rotary positions"


def _mlp(picture: Drawing, config: DecoderConfig) -> None:
    """Norm, MLP and its widening, to scale."""
    _inner(picture, 306, "norm", "soft-green", 22)
    picture.line(170, 328, 170, 344, arrow=True)
    _inner(picture, 344, _mlp_name(config), "soft-violet", 68)
    picture.text(170, 386, "applied to each", 11, "muted", "middle", italic=True)
    picture.text(170, 400, "token separately", 11, "muted", "middle", italic=True)
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
