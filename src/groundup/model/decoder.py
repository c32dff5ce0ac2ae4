"""The decoder: token ids in, one vector per position out, and from it the scores of the next token.

in:  ids [batch, time], and which document each position belongs to
out: hidden [batch, time, d_model] (after the last norm), logits [batch, time, vocab_size]

The shape of Qwen3 (https://arxiv.org/abs/2505.09388), Llama (https://arxiv.org/abs/2302.13971), OLMo 3, Qwen3-MoE
or GPT-2, as its config says. Parameters have the names under which transformers publishes Llama and Qwen3.
"""

from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.core.rng import seed_of
from groundup.model.attention import FUSED, AttentionKernel, KVCache
from groundup.model.config import DecoderConfig
from groundup.model.layers import Layer, Linear, norm
from groundup.model.losses import softcap
from groundup.model.rotary import Turn, angles


class Trunk(nn.Module):
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
    """A language model. `compute_dtype` and the attention kernel are set from outside; parameters stay fp32."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.kernel = FUSED
        self.model = Trunk(config)
        if not config.tie_embeddings:
            self.lm_head = Linear(config.d_model, config.vocab_size, bias=False)

    def init_weights(self, seed: int) -> None:
        """Fill all matrices with normal noise that depends on `seed` and the parameter's name alone.

        std: 1/sqrt(inputs); what writes into the stream is smaller by sqrt(2 layers), so that the stream's size
        doesn't grow with depth, or zero where the config says so; embeddings 0.02, which keeps the first loss at
        log(vocab_size). Norms start at one, biases and the gates of value embeddings at zero.
        """
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                ones = name.endswith(("norm.weight", "residual_scalar"))
                nn.init.constant_(parameter, 1.0 if ones else 0.0)
                continue
            std = 0.02 if "embed" in name or "lm_head" in name else parameter.shape[-1] ** -0.5
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                std = 0.0 if self.config.zero_init else std / (2 * self.config.n_layers) ** 0.5
            if "value_gate" in name:
                std = 0.0
            generator = torch.Generator().manual_seed(seed_of(seed, "init", name))
            noise = torch.randn(parameter.shape, generator=generator) * std
            parameter.data.copy_(noise)

    @property
    def head_weight(self) -> Float[Tensor, "vocab width"]:
        """The matrix that scores every token; the embedding itself where they are tied."""
        return self.model.embed_tokens.weight if self.config.tie_embeddings else self.lm_head.weight

    def use(self, kernel: AttentionKernel) -> None:
        """Compute attention with `kernel` from now on."""
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

        segments: document of each position (see `document_mask`); None = the whole row is one document.
        cache: earlier keys and values; it then says who sees whom, and `positions` must be given.
        positions: default 0, 1, 2, ... (also across documents: with rotary positions only distances matter).
        """
        assert cache is None or (positions is not None and segments is None), (
            "a cache needs positions, not segments"
        )
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)[None]
        if segments is None and cache is None:
            segments = torch.zeros_like(ids, dtype=torch.int32)
        first = self._embedded(ids, positions)
        turns = self._turns(positions)
        seen = {w: self.kernel.see(segments, w) for w in set(turns)} if segments is not None else {}
        x = first
        for index, layer in enumerate(self.model.layers):
            window = self.config.window(index)
            remember = None if cache is None else partial(cache.update, index)
            arguments = (turns[window], seen.get(window), remember, first, self._token_values(index, ids))
            # A compiled layer is compiled for one shape: only training, which has one shape, goes through it.
            trains = torch.is_grad_enabled() and cache is None
            x = layer(x, *arguments) if trains else layer.forward(x, *arguments)
        return self.model.norm(x)  # type: ignore[no-any-return]

    def _embedded(self, ids: Tensor, positions: Tensor) -> Float[Tensor, "batch time width"]:
        x = F.embedding(ids, self.model.embed_tokens.weight)
        if self.config.positions == "learned":
            x = x + F.embedding(positions, self.model.embed_positions.weight)
        return x.to(self.compute_dtype)

    def _turns(self, positions: Tensor) -> dict[int, Turn | None]:
        """Each window's rotation; layers with a window never look far, so only those without are stretched."""
        config = self.config
        windows = set(config.windows) or {0}
        if config.positions == "learned":
            return dict.fromkeys(windows)
        return {window: angles(positions, config.head_dim, config.rope_theta) for window in windows}

    def _token_values(self, index: int, ids: Tensor) -> Float[Tensor, "batch time kv_width"] | None:
        if not self.config.has_value_embedding(index):
            return None
        return F.embedding(ids, self.model.value_embeds[str(index)].weight).to(self.compute_dtype)  # type: ignore[arg-type]

    def logits(self, hidden: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time vocab"]:
        """Scores of every token as the next one, fp32."""
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
