"""Value model: a decoder with a scalar head, for reward models and critics.

in:  ids [batch, time]
out: values [batch, time]: a reward model uses the last token's, a critic all
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.core.rng import derive_seed
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder


class ScoreHead(nn.Linear):
    """A linear map from the residual stream to one number, in fp32 whatever the stream's dtype."""

    def __init__(self, d_model: int) -> None:
        super().__init__(d_model, 1, bias=False)

    def forward(self, hidden: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time"]:
        # A copy instead of a view, which FSDP could not hook.
        return F.linear(hidden.float(), self.weight.float())[..., 0].clone()


class ValueModel(nn.Module):
    """A decoder's backbone with a linear scalar head. Contains a `Decoder`, so that its weights load unchanged."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        decoder = Decoder(config)
        if not config.tie_embeddings:
            del decoder.lm_head
        self.decoder = decoder
        self.score = ScoreHead(config.d_model)
        self.replicated: Callable[[Tensor], Tensor] = _identity
        """applied to the values; set from outside where several ranks compute the same"""
        self.init_score(0)

    def init_score(self, seed: int) -> None:
        """Small noise, so that initial values are near 0 and gradients reach the backbone."""
        generator = torch.Generator().manual_seed(derive_seed(seed, "score"))
        noise = torch.randn(self.score.weight.shape, generator=generator, device="cpu")
        self.score.weight.data.copy_(0.1 * noise / self.config.d_model**0.5)

    @property
    def compute_dtype(self) -> torch.dtype:
        """Compute dtype of the backbone; the head is fp32."""
        return self.decoder.compute_dtype

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype) -> None:
        self.decoder.compute_dtype = dtype

    def init_from_decoder(self, decoder: Decoder, seed: int = 0) -> None:
        """Copy a decoder's backbone and initialize the head."""
        self.decoder.model.load_state_dict(decoder.model.state_dict())
        self.init_score(seed)

    def values(
        self, ids: Int[Tensor, "batch time"], segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time"]:
        """One fp32 number per position."""
        hidden = self.decoder.hidden(ids, segments)
        values: Tensor = self.replicated(self.score(hidden))
        return values

    def forward(
        self, ids: Int[Tensor, "batch time"], segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time"]:
        return self.values(ids, segments)


def model_roots(model: nn.Module) -> list[Decoder | ValueModel]:
    """The decoders and value models that a trained module consists of: itself, or its children."""
    if isinstance(model, Decoder | ValueModel):
        return [model]
    return [root for child in model.children() for root in model_roots(child)]


def decoder_of(root: Decoder | ValueModel) -> Decoder:
    """The decoder itself, or the one under a value head."""
    return root.decoder if isinstance(root, ValueModel) else root


def _identity(values: Tensor) -> Tensor:
    return values
