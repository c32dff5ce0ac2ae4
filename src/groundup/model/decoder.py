"""The decoder: hidden states and logits of token ids.

in:  ids [batch, time], and the document of each position
out: hidden [batch, time, d_model] (after the last norm), logits [batch, time, vocab_size]

The architecture of Qwen3 (https://arxiv.org/abs/2505.09388), Llama (https://arxiv.org/abs/2302.13971), OLMo 3,
Qwen3-MoE or GPT-2, as set in its config. Parameters have the names of Llama and Qwen3 in transformers.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from groundup.core.rng import derive_seed
from groundup.model.attention import FUSED, AttentionKernel, KVCache, document_positions
from groundup.model.config import DecoderConfig
from groundup.model.induction import EMBEDDING, EMBEDDING_STD, HEAD, write_circuit
from groundup.model.layers import Layer, norm
from groundup.model.linear import Linear
from groundup.model.losses import cross_entropy, softcap, token_log_probs
from groundup.model.moe import Routing, TokenShard, balance_loss_per_row, count_tokens, sparse_layers
from groundup.model.rotary import CosSin, rope_cos_sin

EmbeddingFn = Callable[[Tensor, Tensor], Tensor]
"""(ids [batch, time], vectors [vocab, width]) -> vectors [batch, time, width]"""


class Backbone(nn.Module):
    """Embeddings, layers, last norm: everything but the head."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        if config.positions == "learned":
            self.embed_positions = nn.Embedding(config.max_seq_len, config.d_model)
        kv_width = config.n_kv_heads * config.head_dim
        self.value_embeds = nn.ModuleDict(
            {
                str(index): nn.Embedding(config.vocab_size, kv_width)
                for index in range(config.n_layers)
                if config.has_value_embedding(index)
            }
        )
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.n_layers))
        self.norm = norm(config, config.d_model)


class Decoder(nn.Module):
    """A decoder language model. `compute_dtype` and the attention kernel are set from outside; parameters stay fp32.

    `embedding_fn`, `cross_entropy`, `token_log_probs` and `token_shard` may be replaced from outside by equivalents.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.kernel = FUSED
        self.embedding_fn: EmbeddingFn = F.embedding
        self.cross_entropy = cross_entropy
        self.token_log_probs = token_log_probs
        self.token_shard = TokenShard()
        self._routed: tuple[list[Routing], Tensor] | None = None
        self.model = Backbone(config)
        if not config.tie_embeddings:
            self.lm_head = Linear(config.d_model, config.vocab_size, bias=False)

    def init_weights(self, seed: int) -> None:
        """Fill all matrices with normal noise that depends on `seed` and the parameter's name alone.

        std: 1/sqrt(inputs); output projections smaller by sqrt(2 layers), so that the stream doesn't grow with depth,
        or zero with `zero_init`; embeddings 0.02, so that the initial loss is log(vocab_size). Norms are initialized to
        one, biases and the gates of value embeddings to zero. With `induction` in the config, an induction circuit is
        written into it (see `induction.py`).
        """
        for name, parameter in self.named_parameters():
            parameter.data.copy_(self.init_tensor(name, parameter.shape, seed))

    def init_tensor(self, name: str, shape: torch.Size, seed: int) -> Float[Tensor, "*shape"]:
        """The initial value of the parameter `name`, on the CPU."""
        if not self.config.induction:
            return self._noise(name, shape, seed)
        return write_circuit(
            self.config, name, self._noise(EMBEDDING if name == HEAD else name, shape, seed), seed
        )

    def _noise(self, name: str, shape: torch.Size, seed: int) -> Float[Tensor, "*shape"]:
        if len(shape) < 2:
            return torch.full(shape, 1.0 if name.endswith(("norm.weight", "residual_scalar")) else 0.0)
        std = EMBEDDING_STD if "embed" in name or "lm_head" in name else shape[-1] ** -0.5
        if name.endswith(("o_proj.weight", "down_proj.weight", "experts.down_proj")):
            std = 0.0 if self.config.zero_init else std / (2 * self.config.n_layers) ** 0.5
        if "value_gate" in name:
            std = 0.0
        generator = torch.Generator().manual_seed(derive_seed(seed, "init", name))
        return torch.randn(shape, generator=generator) * std

    @property
    def head_weight(self) -> Float[Tensor, "vocab width"]:
        """The output head's matrix; the embedding where they are tied."""
        return self.model.embed_tokens.weight if self.config.tie_embeddings else self.lm_head.weight

    def set_attention_kernel(self, kernel: AttentionKernel) -> None:
        """Set the attention kernel of all layers."""
        self.kernel = kernel
        for layer in self.model.layers:
            layer.self_attn.attend = kernel.attend  # type: ignore[union-attr]

    def hidden(
        self,
        ids: Int[Tensor, "batch time"],
        segments: Int[Tensor, "batch time"] | None = None,
        cache: KVCache | None = None,
        positions: Int[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time width"]:
        """The last norm's output, in the compute dtype.

        segments: document of each position (see `document_mask`); None = each sequence is one document. May be longer
            than `ids`, which then are the tokens at `positions`.
        cache: earlier keys and values; it provides the mask, and `positions` is required.
        positions: default 0, 1, 2, ...; RoPE positions continue across documents, since only distances matter,
            learned ones restart in each.
        With gradients on, the routing is recorded for `balance_loss` and expert loads are counted.
        """
        assert cache is None or (positions is not None and segments is None), (
            "a cache needs positions, not segments"
        )
        if segments is None and cache is None:
            segments = torch.zeros_like(ids, dtype=torch.int32)
        if positions is None:
            assert segments is not None
            positions = self._positions(segments)
        embedded = self._embed(ids, positions)
        cos_sin = self._cos_sin_by_window(positions)
        masks = {w: self.kernel.make_mask(segments, w) for w in set(cos_sin)} if segments is not None else {}
        x, routings = embedded, []
        training = torch.is_grad_enabled() and cache is None
        for index, layer in enumerate(cast(Iterable[Layer], self.model.layers)):
            window = self.config.window(index)
            cache_update = None if cache is None else partial(cache.cache_update, index)
            arguments = (
                cos_sin[window] if self.config.has_rope(index) else None,
                masks.get(window),
                cache_update,
                embedded,
                self._token_values(index, ids),
            )
            # Layers are compiled for one shape, which only training has.
            x, routing = layer(x, *arguments) if training else layer.forward_uncompiled(x, *arguments)
            routings += [] if routing is None else [routing]
        if training and routings:
            assert segments is not None
            local_segments = (
                segments
                if segments.shape == ids.shape
                else segments.gather(1, positions.expand(len(ids), -1))
            )
            self._count_routing(routings, local_segments >= 0)
        return self.model.norm(x) if training else self.model.norm.forward(x)  # type: ignore[no-any-return]

    def _positions(self, segments: Int[Tensor, "batch time"]) -> Int[Tensor, "rows time"]:
        if self.config.positions == "learned":
            return document_positions(segments)
        return torch.arange(segments.shape[1], device=segments.device)[None]

    def _count_routing(self, routings: list[Routing], real_tokens: Bool[Tensor, "batch time"]) -> None:
        """Record the routing for `balance_loss`, and count the tokens of each expert, without padding."""
        real_tokens = self.token_shard.local_tokens(real_tokens)
        self._routed = routings, real_tokens
        for layer, routing in zip(sparse_layers(self), routings, strict=True):
            # Padding counts for no expert.
            chosen = routing.chosen.masked_fill(~real_tokens[..., None], -1)
            layer.load += count_tokens(chosen.flatten(), len(layer.load))

    def balance_loss(self, row_weights: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Auxiliary load balancing loss of the latest forward pass with gradients.

        balance_rate * sum over layers and rows of row_weight * `row_balance`; zero for other
        kinds of balancing. row_weights: each sequence's weight as a fraction of the step's.
        """
        moe = self.config.moe
        if moe is None or moe.balance != "loss":
            return row_weights.new_zeros(())
        assert self._routed is not None, "run a forward pass with gradients first"
        routings, real = self._routed
        rows = torch.stack(
            [balance_loss_per_row(routing, real, self.token_shard) for routing in routings]
        ).sum(dim=0)
        return self.token_shard.sum_over_ranks(moe.balance_rate * (rows * row_weights).sum())

    def _embed(self, ids: Tensor, positions: Tensor) -> Float[Tensor, "batch time width"]:
        x = self.embedding_fn(ids, self.model.embed_tokens.weight)
        if self.config.positions == "learned":
            x = x + F.embedding(positions, self.model.embed_positions.weight)
        return x.to(self.compute_dtype)

    def _cos_sin_by_window(self, positions: Tensor) -> dict[int, CosSin | None]:
        """Cosines and sines by window. RoPE scaling applies only to layers without a window."""
        config = self.config
        windows = set(config.windows) or {0}
        if config.positions == "learned":
            return dict.fromkeys(windows)
        numbers = positions, config.head_dim, config.rope_theta
        return {window: rope_cos_sin(*numbers, None if window else config.rope_scaling) for window in windows}

    def _token_values(self, index: int, ids: Tensor) -> Float[Tensor, "batch time kv_width"] | None:
        if not self.config.has_value_embedding(index):
            return None
        return F.embedding(ids, self.model.value_embeds[str(index)].weight).to(self.compute_dtype)  # type: ignore[arg-type]

    def logits(self, hidden: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time vocab"]:
        """Next-token logits, fp32."""
        scores = F.linear(hidden, self.head_weight.to(hidden.dtype)).float()
        return softcap(scores, self.config.logit_softcap)

    def forward(
        self,
        ids: Int[Tensor, "batch time"],
        segments: Int[Tensor, "batch time"] | None = None,
        cache: KVCache | None = None,
        positions: Int[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time vocab"]:
        """Logits at every position; for training use `hidden` and a chunked loss, which keeps no logits."""
        return self.logits(self.hidden(ids, segments, cache, positions))
