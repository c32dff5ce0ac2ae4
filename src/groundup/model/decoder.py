"""The decoder: token ids in, one vector per position out, and from it the scores of the next token.

in:  ids [batch, time], and which document each position belongs to
out: hidden [batch, time, d_model] (after the last norm), logits [batch, time, vocab_size]

The shape of Qwen3 (https://arxiv.org/abs/2505.09388) or, without the norm on queries and keys, of Llama
(https://arxiv.org/abs/2302.13971). Parameters have the names under which transformers publishes them.
"""

from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.core.rng import seed_of
from groundup.model.attention import KVCache, causal_mask, document_mask
from groundup.model.config import DecoderConfig
from groundup.model.layers import Layer, RMSNorm, linear
from groundup.model.rotary import angles


class Trunk(nn.Module):
    """Embedding, layers, last norm: everything but the head."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.d_model, config.norm_eps)


class Decoder(nn.Module):
    """A language model. `compute_dtype` is set from outside; the parameters stay fp32."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.model = Trunk(config)
        if not config.tie_embeddings:
            self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)

    def init_weights(self, seed: int) -> None:
        """Fill all matrices with normal noise that depends on `seed` and the parameter's name alone.

        std: 1/sqrt(inputs); what writes into the stream is smaller by sqrt(2 layers), so that the stream's size
        doesn't grow with depth; embeddings 0.02, which keeps the first loss at log(vocab_size).
        """
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                nn.init.ones_(parameter)
                continue
            std = 0.02 if "embed" in name or "lm_head" in name else parameter.shape[1] ** -0.5
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                std /= (2 * self.config.n_layers) ** 0.5
            generator = torch.Generator().manual_seed(seed_of(seed, "init", name))
            noise = torch.randn(parameter.shape, generator=generator) * std
            parameter.data.copy_(noise)

    @property
    def head_weight(self) -> Float[Tensor, "vocab width"]:
        """The matrix that scores every token; the embedding itself where they are tied."""
        return self.model.embed_tokens.weight if self.config.tie_embeddings else self.lm_head.weight

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
        positions: default 0, 1, 2, ... (also across documents: only distances matter).
        """
        assert cache is None or (positions is not None and segments is None), (
            "a cache needs positions, not segments"
        )
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)[None]
        cos, sin = angles(positions, self.config.head_dim, self.config.rope_theta)
        x = F.embedding(ids, self.model.embed_tokens.weight).to(self.compute_dtype)
        if cache is not None:
            for index, layer in enumerate(self.model.layers):
                x = layer.forward(x, cos, sin, None, partial(cache.update, index))
            return self.model.norm(x)  # type: ignore[no-any-return]
        mask = causal_mask(ids.shape[1], ids.device) if segments is None else document_mask(segments)
        for layer in self.model.layers:
            # A compiled layer is compiled for one shape: only training, which has one shape, goes through it.
            x = layer(x, cos, sin, mask) if torch.is_grad_enabled() else layer.forward(x, cos, sin, mask)
        return self.model.norm(x)  # type: ignore[no-any-return]

    def logits(self, hidden: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time vocab"]:
        """Scores of every token as the next one, fp32."""
        return linear(hidden, self.head_weight).float()

    def forward(
        self,
        ids: Int[Tensor, "batch time"],
        segments: Int[Tensor, "batch time"] | None = None,
        cache: KVCache | None = None,
        positions: Int[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time vocab"]:
        """Logits at every position; for training use `hidden` and a chunked loss, which keeps no logits."""
        return self.logits(self.hidden(ids, segments, cache, positions))
