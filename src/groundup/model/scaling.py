"""Scaling rules: width, heads, feed-forward, learning rate, batch and training tokens as functions of depth.

in:  a depth, or the config that followed from it (`architectures/`)
out: the other numbers, each by a rule written here
"""

import math

from groundup.model.config import DecoderConfig
from groundup.model.flops import matmul_parameters

TOKENS_PER_PARAMETER = 20
"""Hoffmann et al. 2022, https://arxiv.org/abs/2203.15556: about 20 tokens per parameter is compute-optimal."""
REFERENCE_WIDTH, REFERENCE_BATCH, REFERENCE_TOKENS = 256, 8192, 4_000_000
"""Where the rates below were measured; the rules only say how they change from there."""
MUON_RATE, ADAM_WITH_MUON_RATE, ADAM_RATE = 0.007, 0.012, 3e-3
"""The best peak rates at the reference (4 layers): of Muon, of AdamW for what Muon leaves, of AdamW for everything."""
DECAY_FRACTION = 0.06
"""Time constant of weight decay as a fraction of the run."""


def horizon_tokens(config: DecoderConfig) -> int:
    """Training tokens where the recipe names none: 20 per parameter of the layers (without embedding and head)."""
    return TOKENS_PER_PARAMETER * (matmul_parameters(config) - config.vocab_size * config.d_model)


def batch_tokens(depth: int) -> int:
    """Tokens per optimizer step where the recipe names none: 512 x depth^2, to the nearest power of two.

    A larger model is trained for longer, and the useful batch grows with both (McCandlish et al. 2018,
    https://arxiv.org/abs/1812.06162).
    """
    return int(2 ** round(math.log2(512 * depth**2)))


def rate_factor(d_model: int, batch_tokens: int, tokens: int) -> float:
    """How a peak rate changes from the reference to this width, tokens per step and tokens in all.

    width: 1 / sqrt. An orthogonal update whose elements have a given root mean square has a spectral norm that grows
    with the root of the width, and it is the norm that must stay for features to be learned alike at any width
    (Yang et al. 2023, https://arxiv.org/abs/2310.17813, as in Tensor Programs V, https://arxiv.org/abs/2203.03466).
    For Adam, muP asks for 1 / width in hidden matrices and head and for no change in embeddings; AdamW has one rate
    here, and takes the mean of the two.
    batch: sqrt, as adaptive methods need while noise dominates the gradient (Malladi et al. 2022,
    https://arxiv.org/abs/2205.10287), that is, below the critical batch.
    tokens: to the power -0.32: longer runs want lower rates (Bjorck et al. 2024, https://arxiv.org/abs/2409.19913).
    depth: none. What writes into the stream starts smaller by sqrt(2 x layers), but branches aren't scaled down by
    depth as CompleteP (https://arxiv.org/abs/2505.01618) would; depth, width, batch and tokens grow together on the
    dial, and the experiment `benchmarks/one_dial.py` tests all of them at once.
    """
    width = (REFERENCE_WIDTH / d_model) ** 0.5
    batch = (batch_tokens / REFERENCE_BATCH) ** 0.5
    return float(width * batch * (REFERENCE_TOKENS / tokens) ** 0.32)


def weight_decay(rate: float, batch_tokens: int, tokens: int) -> float:
    """The decay that forgets an update after DECAY_MEMORY of the run: 1 / (rate x steps x DECAY_MEMORY).

    Weights under decoupled decay are an exponential mean of updates with a memory of 1 / (rate x decay) steps. It is
    this memory, as a share of the run, that carries over to other widths, rates and amounts of data (Wang and Aitchison
    2024, https://arxiv.org/abs/2405.13698). At the peak rate, that is: a rate that falls to zero remembers longer.
    """
    return batch_tokens / (rate * tokens * DECAY_FRACTION)
