"""Logits -> the next token.

in:  logits of a batch of prompts, and for each prompt one uniform number that belongs to (seed, key, position)
out: one id per prompt, and the log-probability it had

The number picks the token by inverting the cumulative distribution, so what is drawn for a prompt depends on
its own logits and its own number, never on who shares its batch. top-p: Holtzman et al. 2019 (arXiv:1904.09751).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.core.rng import derive_seed

GREEDY_BELOW = 1e-5
"""Temperatures below this are greedy: dividing logits by them overflows, and the distribution is one token anyway."""


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters. Temperature 0 is greedy; top_k 0 and top_p 1 keep all tokens."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature = {self.temperature}: must be 0 (greedy) or more")
        if self.top_k < 0:
            raise ValueError(f"top_k = {self.top_k}: must be 0 (all tokens) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p = {self.top_p}: must be above 0 and at most 1")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken."""
        return self.temperature < GREEDY_BELOW


def uniforms(seed: int, key: int | str, count: int) -> Float[Tensor, " count"]:
    """The numbers in [0, 1) of the prompt called `key`, one for each position of its answer."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "sampling", key))
    return torch.rand(count, generator=generator, dtype=torch.float64)


def log_probabilities(
    logits: Float[Tensor, "batch vocab"], temperature: float
) -> Float[Tensor, "batch vocab"]:
    """Log-probabilities at `temperature`, before top-k and top-p; a greedy one gives those of temperature 1."""
    return torch.log_softmax(logits.float() / (1.0 if temperature < GREEDY_BELOW else temperature), dim=-1)


def next_tokens(
    log_probs: Float[Tensor, "batch vocab"], numbers: Float[Tensor, " batch"], sampling: Sampling
) -> Int[Tensor, " batch"]:
    """Draw one id per row from tempered log-probabilities."""
    if sampling.greedy:
        return log_probs.argmax(dim=-1)
    probabilities = _kept(log_probs, sampling).exp().double()
    cumulative = probabilities.cumsum(dim=-1)
    total = cumulative[:, -1:]
    # Strictly below the total, and `right`: a token of probability 0 is never drawn.
    wanted = torch.minimum(numbers.double()[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, wanted, right=True)[:, 0]


def _kept(log_probs: Float[Tensor, "batch vocab"], sampling: Sampling) -> Float[Tensor, "batch vocab"]:
    """-inf for what top-k and top-p leave out. The likeliest token always stays."""
    if 0 < sampling.top_k < log_probs.shape[-1]:
        least = log_probs.topk(sampling.top_k, dim=-1).values[:, -1:]
        log_probs = log_probs.masked_fill(log_probs < least, -torch.inf)
    if sampling.top_p < 1:
        log_probs = torch.log_softmax(log_probs, dim=-1)
        ordered, places = log_probs.sort(dim=-1, descending=True, stable=True)
        mass_before = ordered.exp().cumsum(dim=-1) - ordered.exp()
        out = torch.zeros_like(mass_before, dtype=torch.bool).scatter(
            -1, places, mass_before >= sampling.top_p
        )
        log_probs = log_probs.masked_fill(out, -torch.inf)
    return log_probs
