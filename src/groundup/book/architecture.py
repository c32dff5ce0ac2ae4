"""A model's config -> its drawing, and its parameters counted part by part.

in:  config.json as transformers writes it (Qwen3 or Llama shape)
out: `Shape`, `parameter_table` whose rows add up to the model's parameters, `architecture_svg`
"""

from dataclasses import dataclass
from typing import Any

from groundup.book.drawing import Drawing


@dataclass(frozen=True)
class Shape:
    """What the drawing needs to know of a decoder."""

    family: str
    vocabulary: int
    width: int
    blocks: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    tied: bool
    qk_norm: bool
    context: int


@dataclass(frozen=True)
class Part:
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


def shape_of(config: dict[str, Any]) -> Shape:
    """Read a config.json. Raises KeyError where it says no width, depth or vocabulary."""
    heads = int(config["num_attention_heads"])
    family = str(config.get("model_type", "decoder"))
    width = int(config["hidden_size"])
    return Shape(
        family=family,
        vocabulary=int(config["vocab_size"]),
        width=width,
        blocks=int(config["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or width // heads),
        hidden=int(config["intermediate_size"]),
        tied=bool(config.get("tie_word_embeddings", False)),
        qk_norm=family.startswith("qwen3"),
        context=int(config.get("max_position_embeddings", 0)),
    )


def parts_of(shape: Shape) -> tuple[Part, ...]:
    """Every weight of the model, in the order in which the data meets them."""
    d, queries, keys = shape.width, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    n = shape.blocks
    parts = [
        Part("token embedding", f"{shape.vocabulary:,} × {d:,}", shape.vocabulary * d, 1,
             "a vector for every token"),
        Part("query", f"{d:,} × {queries:,}", d * queries, n, "what each position looks for"),
        Part("key", f"{d:,} × {keys:,}", d * keys, n, "what each position offers"),
        Part("value", f"{d:,} × {keys:,}", d * keys, n, "what is passed on where they meet"),
        Part("attention output", f"{queries:,} × {d:,}", queries * d, n, "mixes the heads"),
        Part("MLP gate and up", f"2 × {d:,} × {shape.hidden:,}", 2 * d * shape.hidden, n, "widens each position"),
        Part("MLP down", f"{shape.hidden:,} × {d:,}", shape.hidden * d, n, "and narrows it again"),
        Part("norms in a block", f"2 × {d:,}" + f" + 2 × {shape.head_dim}" * shape.qk_norm,
             2 * d + 2 * shape.head_dim * shape.qk_norm, n, "keep the scale steady"),
        Part("final norm", f"{d:,}", d, 1, "before the last step"),
    ]  # fmt: skip
    if not shape.tied:
        parts.append(Part("output head", f"{d:,} × {shape.vocabulary:,}", d * shape.vocabulary, 1,
                          "a score for every next token"))  # fmt: skip
    return tuple(parts)


def architecture_svg(shape: Shape) -> str:
    """The decoder from text to next token, one block opened."""
    picture = Drawing(640, 590)
    parts = {part.name: part for part in parts_of(shape)}
    _box(picture, 2, "text", "cut into tokens", "card")
    picture.line(170, 38, 170, 54, arrow=True)
    embedding = f"{shape.vocabulary:,} tokens × {shape.width:,} = {parts['token embedding'].parameters:,}"
    _box(picture, 54, "embedding", f"a vector of {shape.width:,} for each token", "soft-blue", embedding)
    _frame(picture, shape)
    _attention(picture, shape)
    _mlp(picture, shape)
    picture.line(170, 466, 170, 496, arrow=True)
    _box(
        picture,
        496,
        "norm and output head",
        f"{shape.vocabulary:,} scores",
        "soft-blue",
        _head_note(shape, parts),
    )
    picture.line(170, 532, 170, 548, arrow=True)
    _box(picture, 548, "next token", "drawn by probability", "card")
    return picture.svg()


def _head_note(shape: Shape, parts: dict[str, Part]) -> str:
    if shape.tied:
        return "shares the embedding's numbers"
    return f"{shape.width:,} × {shape.vocabulary:,} = {parts['output head'].parameters:,}"


def _box(picture: Drawing, y: float, title: str, note: str, fill: str, right: str = "") -> None:
    picture.rect(50, y, 240, 36, fill, "faint")
    picture.text(170, y + 16, title, 13.5, anchor="middle")
    picture.text(170, y + 30, note, 11, "muted", "middle", italic=True)
    if right:
        picture.text(350, y + 22, right, 12, "muted")


def _frame(picture: Drawing, shape: Shape) -> None:
    """The block's outline, its residual stream and how often it is repeated."""
    picture.line(170, 92, 170, 140, arrow=True)
    picture.rect(14, 114, 612, 352, "page", "muted", radius=8)
    picture.rect(520, 104, 92, 22, "orange", radius=11)
    picture.text(566, 119, f"× {shape.blocks} blocks", 12.5, "page", "middle", bold=True)
    for top, bottom in ((128, 278), (294, 444)):
        picture.path(f"M170 {top}H34V{bottom}H158", stroke="muted")
        picture.path(f"M153 {bottom - 3.5}L158 {bottom}L153 {bottom + 3.5}", stroke="muted")
        picture.circle(170, bottom, 10, "page", "muted")
        picture.text(170, bottom + 5, "+", 16, "ink", "middle")
    picture.line(170, 288, 170, 306, arrow=True)
    picture.line(170, 454, 170, 466)


def _attention(picture: Drawing, shape: Shape) -> None:
    """Norm, attention and its heads: every key-value head under the query heads that share it."""
    _inner(picture, 140, "norm", "soft-green", 22)
    picture.line(170, 162, 170, 178, arrow=True)
    _inner(picture, 178, "attention", "soft-orange", 68)
    picture.text(170, 220, "each token looks back", 11, "muted", "middle", italic=True)
    picture.text(170, 234, "at those before it", 11, "muted", "middle", italic=True)
    picture.line(170, 246, 170, 268, arrow=True)
    group = max(shape.heads // shape.kv_heads, 1)
    shown = min(shape.heads, 24)
    step = min(26.0, 250 / shown)
    for head in range(shown):
        x = 350 + head * step
        picture.rect(x, 178, step - 4, 20, "blue", radius=3)
        if head % group == 0:
            span = min(group, shown - head) * step - 4
            picture.rect(x, 206, span, 20, "orange", radius=3)
    more = f" ({shown} drawn)" if shown < shape.heads else ""
    picture.text(350, 170, f"{shape.heads} query heads of {shape.head_dim}{more}", 12, "blue")
    picture.text(350, 242, f"{shape.kv_heads} key and value heads", 12, "orange")
    if shape.qk_norm:
        picture.text(350, 260, "queries and keys are normed, positions rotated in", 11, "muted", italic=True)
    else:
        picture.text(350, 260, "positions are rotated into queries and keys", 11, "muted", italic=True)


def _mlp(picture: Drawing, shape: Shape) -> None:
    """Norm, MLP and its widening, to scale."""
    _inner(picture, 306, "norm", "soft-green", 22)
    picture.line(170, 328, 170, 344, arrow=True)
    _inner(picture, 344, "MLP (SwiGLU)", "soft-violet", 68)
    picture.text(170, 386, "each token is worked on", 11, "muted", "middle", italic=True)
    picture.text(170, 400, "by itself", 11, "muted", "middle", italic=True)
    picture.line(170, 412, 170, 434, arrow=True)
    full = 250.0
    narrow = full * min(shape.width / max(shape.hidden, 1), 1)
    left, right = 350 + (full - narrow) / 2, 350 + (full + narrow) / 2
    picture.path(f"M{left} 344H{right}L600 364V384L{right} 404H{left}L350 384V364Z", "soft-violet", "violet")
    picture.text(475, 338, f"{shape.width:,} wide", 12, "violet", "middle")
    picture.text(475, 378, f"{shape.hidden:,}", 12.5, "violet", "middle")
    picture.text(475, 420, f"{shape.width:,}", 12, "violet", "middle")


def _inner(picture: Drawing, y: float, title: str, fill: str, height: float) -> None:
    picture.rect(75, y, 190, height, fill, "faint")
    picture.text(170, y + (16 if height < 40 else 22), title, 13, anchor="middle")
