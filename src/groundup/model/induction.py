"""Induction circuit: first weights with which an untrained decoder repeats what it has read before.

in:  a DecoderConfig with `induction`, the name of a parameter and its random initial value
out: the value with the circuit written into it; the blocks of each parameter that training leaves unchanged

Elhage et al. 2021 (https://transformer-circuits.pub/2021/framework) describe the circuit, and Olsson et al. 2022
(https://arxiv.org/abs/2209.11895) how training forms it after many tokens. Here it is given, not learned:

- Layer 0, head 0 attends one position back, by the angles of the rotary positions. Head 1 attends to its own position.
  Both read a random projection P of the token's embedding; head 0 writes it into a subspace B of the stream, head 1
  into a subspace C.
- Layer 1, head 0 compares C of its own position with B of the earlier ones: it finds the position after an earlier
  occurrence of the current token. It reads C there and writes it back through the transpose of P, which raises the
  logit of the token that followed.

The queries and keys of layer 0 read one channel of the stream that all embeddings share. An output head that is not
tied starts as a copy of the embedding. Everything else is random and is trained around the circuit. The weights are
ordinary weights: any runtime computes them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.core.rng import derive_seed
from groundup.model.config import DecoderConfig
from groundup.model.rotary import rope_frequencies

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
EMBEDDING_STD = 0.02
"""Standard deviation of the embeddings' initial noise."""
COMMON = 4.0
"""Value of the channel that all embeddings share, as a multiple of EMBEDDING_STD."""
PEAK_LOGIT = 20.5
"""Attention logit of the position that a head of the circuit looks for."""
COPY_RATIO = 1.8
"""Root mean square of what layer 1 writes, relative to the stream."""
QUIET_NORM = 0.3
"""Norms after the parts of a layer that are not in the circuit start with this weight, where norms follow the parts."""
LOOK_BACK_PAIRS = 8
"""Fastest pairs of channels, whose angles tell the position before from all others. A pair's share of the attention
logit is as the root of its frequency: of 512 positions, a head of 64 channels gives 0.97 of its attention to the right
one; with the three fastest pairs it gives 0.3, since they agree again at other distances, such as 45."""
CIRCUIT_HEADS = (2, 1)
"""Query heads of the circuit in layers 0 and 1: the first ones of each layer."""


@dataclass(frozen=True)
class Block:
    """Indices `start` to `stop` along `axis` of a parameter, all of them along the other axes."""

    axis: int
    start: int
    stop: int


def held_blocks(config: DecoderConfig, name: str) -> tuple[Block, ...]:
    """The blocks of the parameter `name` that the circuit consists of; none where the config has no circuit.

    A LoRA adapter B A of a matrix is held where B changes held rows or A reads held columns.
    """
    if not config.induction:
        return ()
    if name == EMBEDDING:
        return (Block(1, config.d_model - 1, config.d_model),)
    layer, part = _layer_and_part(name)
    if layer >= len(CIRCUIT_HEADS):
        return ()
    queries = CIRCUIT_HEADS[layer] * config.head_dim
    keys = _kv_heads(config, layer) * config.head_dim
    if part.startswith("value_embeds."):
        return (Block(1, 0, keys),)
    stem, _, kind = part.removesuffix(".weight").removesuffix(".bias").partition(".lora_")
    rows = {"q_proj": queries, "k_proj": keys, "v_proj": keys}
    if stem in rows and kind in ("", "B"):
        return (Block(0, 0, rows[stem]),)
    if stem == "o_proj" and kind in ("", "A"):
        return (Block(1, 0, queries),)
    if stem in ("q_norm", "k_norm"):
        whole = config.head_dim if config.qk_norm == "head" else {"q_norm": queries, "k_norm": keys}[stem]
        return (Block(0, 0, whole),)
    return ()


def write_circuit(
    config: DecoderConfig, name: str, noise: Float[Tensor, "*shape"], seed: int
) -> Float[Tensor, "*shape"]:
    """The initial value of the parameter `name`: `noise` with the circuit's blocks written into it."""
    value = noise.clone()
    if name in (EMBEDDING, HEAD):
        value[:, -1] = COMMON * EMBEDDING_STD
        return value
    layer, part = _layer_and_part(name)
    if config.norm_at == "output" and part.endswith("layernorm.weight"):
        value[:] = _output_norm(layer, part)
    blocks = held_blocks(config, name)
    if not blocks:
        return value
    (block,) = blocks
    held = value.narrow(block.axis, block.start, block.stop - block.start)
    held.copy_(_held_values(config, layer, part, held, seed))
    return value


def _held_values(config: DecoderConfig, layer: int, part: str, held: Tensor, seed: int) -> Tensor:
    """The value of a held block, in the block's shape."""
    if part.endswith(".bias") or part.startswith("value_embeds."):
        return torch.zeros_like(held)
    stem = part.removesuffix(".weight")
    if stem in ("q_norm", "k_norm"):
        return torch.full_like(held, _norm_weight(config, layer))
    circuit = _Circuit(config, seed)
    write: Callable[[], Tensor] = getattr(circuit, f"{stem.removesuffix('_proj')}_{layer}")
    return write()


@dataclass(frozen=True)
class _Circuit:
    """The circuit's matrices: method q_0 is the held block of q_proj in layer 0, and so on."""

    config: DecoderConfig
    seed: int

    @property
    def _projection(self) -> Float[Tensor, "dim width"]:
        """P: random orthonormal rows, which do not read the common channel."""
        return self._orthonormal("token", self.config.head_dim)

    @property
    def _subspaces(self) -> tuple[Float[Tensor, "dim width"], Float[Tensor, "dim width"]]:
        """B and C: orthogonal to each other."""
        both = self._orthonormal("subspaces", 2 * self.config.head_dim)
        previous, own = both.chunk(2)
        return previous, own

    def _orthonormal(self, purpose: str, rows: int) -> Float[Tensor, "rows width"]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "induction", purpose))
        noise = torch.randn(self.config.d_model - 1, rows, generator=generator)
        matrix = torch.linalg.qr(noise).Q.T
        return torch.nn.functional.pad(matrix, (0, 1))

    def q_0(self) -> Tensor:
        """Head 0 matches the key of the position before, head 1 that of its own position."""
        frequencies, weights = self._look_back()
        pairs = self.config.head_dim // 2
        angles = torch.stack([frequencies, torch.zeros_like(frequencies)])
        heads = torch.zeros(2, 2, pairs)
        heads[:, 0], heads[:, 1] = weights * angles.cos(), -weights * angles.sin()
        return self._from_common(heads.flatten())

    def k_0(self) -> Tensor:
        """The same key at every position, which the rotary positions turn."""
        _, weights = self._look_back()
        head = torch.cat([weights, torch.zeros_like(weights)])
        return self._from_common(head.repeat(_kv_heads(self.config, 0)))

    def v_0(self) -> Tensor:
        """P of the token."""
        return self._projection.repeat(_kv_heads(self.config, 0), 1)

    def o_0(self) -> Tensor:
        """Head 0 writes into B, head 1 into C: together half of the stream's energy."""
        scale = math.sqrt(self.config.d_model / (4 * self.config.head_dim))
        return scale * torch.cat(self._subspaces).T

    def q_1(self) -> Tensor:
        """C of its own position."""
        return self._slow_rows(self._subspaces[1])

    def k_1(self) -> Tensor:
        """B of the earlier positions."""
        return self._slow_rows(self._subspaces[0])

    def v_1(self) -> Tensor:
        """C of the position found."""
        return self._subspaces[1]

    def o_1(self) -> Tensor:
        """Back through the transpose of P."""
        config = self.config
        scale = COPY_RATIO * math.sqrt(config.d_model / config.head_dim) / _match_rms(config)
        return scale * self._projection.T

    def _look_back(self) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
        """Rotary frequencies of all pairs of channels, and the amplitudes of queries and keys in them."""
        config = self.config
        scaling = None if config.window(0) else config.rope_scaling
        frequencies = rope_frequencies(config.head_dim, config.rope_theta, scaling)
        shares = frequencies.sqrt()
        shares[LOOK_BACK_PAIRS:] = 0.0
        return frequencies, (shares / shares.sum()).sqrt()

    def _from_common(self, vector: Float[Tensor, " rows"]) -> Float[Tensor, "rows width"]:
        """Rows that read the common channel alone."""
        config = self.config
        common = COMMON * EMBEDDING_STD
        rms = EMBEDDING_STD * math.sqrt(1 + (COMMON**2 - 1) / config.d_model)
        if config.norm_at == "input":
            common, rms = common / rms, 1.0
        # Without a norm of its own the head must have the logit's size by itself; with one over all heads it must be
        # as large as the others.
        size = (
            math.sqrt(PEAK_LOGIT * math.sqrt(config.head_dim))
            if config.qk_norm == "none"
            else math.sqrt(config.head_dim) * rms
        )
        matrix = torch.zeros(len(vector), config.d_model)
        matrix[:, -1] = vector * size / common
        return matrix

    def _slow_rows(self, subspace: Float[Tensor, "dim width"]) -> Float[Tensor, "dim width"]:
        """Rows of a subspace in the pairs that turn slowly, so that distance hardly matters."""
        config = self.config
        pairs = config.head_dim // 2
        slow = torch.arange(pairs // 2, pairs)
        rows = torch.cat([slow, slow + pairs])
        matrix = torch.zeros(config.head_dim, config.d_model)
        matrix[rows] = subspace[: len(rows)]
        return matrix * (_match_rms_wanted(config) / _match_rms(config) if config.qk_norm == "none" else 1.0)


def _layer_and_part(name: str) -> tuple[int, str]:
    """("model.layers.1.self_attn.q_proj.weight") -> (1, "q_proj.weight"). Layer 2^31 for what is in no layer."""
    pieces = name.split(".")
    if pieces[1] == "value_embeds":
        return int(pieces[2]), ".".join(pieces[1:])
    if pieces[1] != "layers":
        return 2**31, name
    start = 4 if pieces[3] == "self_attn" else 3
    return int(pieces[2]), ".".join(pieces[start:])


def _kv_heads(config: DecoderConfig, layer: int) -> int:
    """Key/value heads that the circuit's query heads of a layer use."""
    return -(-CIRCUIT_HEADS[layer] // (config.n_heads // config.n_kv_heads))


def _match_rms(config: DecoderConfig) -> float:
    """Root mean square of a channel of B or C as layer 1 reads it."""
    if config.norm_at == "output":
        return math.sqrt(config.d_model / (2 * config.head_dim)) / math.sqrt(1 + QUIET_NORM**2)
    return 1.2 * math.sqrt(config.d_model / (4 * config.head_dim))


def _match_rms_wanted(config: DecoderConfig) -> float:
    """Root mean square of a query's or key's slow channels at which a match has PEAK_LOGIT: half of them are zero."""
    return math.sqrt(2 * PEAK_LOGIT / math.sqrt(config.head_dim))


def _norm_weight(config: DecoderConfig, layer: int) -> float:
    """The weight of the norms of queries and keys at which the logit sought is PEAK_LOGIT."""
    if config.qk_norm == "width" and layer == 1:
        return _match_rms_wanted(config) / _match_rms(config)
    return math.sqrt(PEAK_LOGIT / math.sqrt(config.head_dim))


def _output_norm(layer: int, part: str) -> float:
    if part.startswith("post_attention") and layer < len(CIRCUIT_HEADS):
        return (1.0, COPY_RATIO)[layer]
    return QUIET_NORM


def repeated_tokens(
    vocabulary: int, bos: int, length: int, sequences: int, seed: int = 0
) -> Int[Tensor, "sequences time"]:
    """Sequences of `length` random ids below `vocabulary`, each twice in a row after `bos`."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "repeated tokens"))
    once = torch.randint(vocabulary, (sequences, length), generator=generator)
    return torch.cat([torch.full((sequences, 1), bos), once, once], dim=1)


@torch.no_grad()
def induction_accuracy(logits_of: Callable[[Tensor], Tensor], ids: Int[Tensor, "sequences time"]) -> float:
    """Fraction of the second copy's tokens that have the highest logit; its first token can't be known.

    logits_of: ids -> logits [sequences, time, vocabulary]. ids: from `repeated_tokens`.
    """
    known = (ids.shape[1] - 1) // 2 + 1
    predicted = logits_of(ids[:, :-1])[:, known:].argmax(dim=-1)
    return float((predicted == ids[:, known + 1 :].to(predicted.device)).float().mean())
