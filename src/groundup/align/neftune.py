"""NEFTune: uniform noise on the embeddings of the training tokens.

in:  embeddings of packed sequences, the sequence of each position, a seed
out: the same with noise from U(-1, 1) * alpha / sqrt(length * width), length that of the position's sequence

Jain et al. 2023 (arXiv:2310.05914), algorithm 1. The noise depends on the seed alone, so ranks that share a matrix add
the same noise.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.model.decoder import Decoder


def embedding_noise(
    segments: Int[Tensor, "rows time"], width: int, alpha: float, seed: int
) -> Float[Tensor, "rows time width"]:
    """The noise of every position; 0 on padding, whose segment is -1."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand((*segments.shape, width), generator=generator) * 2 - 1
    numbers = segments.long().cpu() + 1
    lengths = torch.bincount(numbers.flatten())[numbers].clamp(min=1)
    scale = alpha / (lengths * width).float().sqrt()
    return uniform * (scale * (numbers > 0))[..., None]


@contextmanager
def noisy_embeddings(
    model: Decoder, segments: Int[Tensor, "rows time"], alpha: float, seed: int
) -> Iterator[None]:
    """Within the context, the model's embeddings of these sequences have noise."""
    plain = model.embedding_fn
    noise = embedding_noise(segments, model.config.d_model, alpha, seed)

    def noisy(ids: Tensor, weight: Tensor) -> Tensor:
        embedded = plain(ids, weight)
        return embedded + noise.to(embedded)

    model.embedding_fn = noisy
    try:
        yield
    finally:
        model.embedding_fn = plain
