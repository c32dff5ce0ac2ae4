"""Mixture of experts: a router sends every token to a few of many feed-forwards.

in:  the normed stream [batch, time, d_model]
out: the weighted sum of the chosen experts' outputs, and the routing

Shazeer et al. 2017, https://arxiv.org/abs/1701.06538; many narrow experts and shared ones as in DeepSeekMoE,
https://arxiv.org/abs/2401.06066. No token is dropped, and its output does not depend on other tokens.
Load is balanced by an auxiliary loss (Switch Transformer, https://arxiv.org/abs/2101.03961) or by a bias on
the router's choice (https://arxiv.org/abs/2408.15664).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from groundup.model.config import DecoderConfig
from groundup.model.config import MoE as Numbers
from groundup.model.grouped_gemm import grouped_product

ExpertOp = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(rows sorted by expert, rows per expert, gate and up weights, down weights) -> each row through its expert"""


class Routing(NamedTuple):
    """A router's decision in one layer."""

    probs: Float[Tensor, "batch time experts"]
    """router probabilities, fp32"""
    chosen: Int[Tensor, "batch time per_token"]
    """the experts that each token was sent to"""


class Router(nn.Module):
    """Router probabilities of every expert, in fp32, since near ties decide which experts are trained."""

    bias: Float[Tensor, " experts"] | None

    def __init__(self, config: DecoderConfig, numbers: Numbers) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(numbers.n_experts, config.d_model))
        self.per_token, self.normalize = numbers.n_experts_per_token, numbers.normalize
        # Only affects the choice of experts: their weights are the probabilities.
        self.register_buffer("bias", torch.zeros(numbers.n_experts) if numbers.balance == "bias" else None)

    def forward(
        self, x: Float[Tensor, "batch time width"]
    ) -> tuple[Float[Tensor, "batch time per_token"], Routing]:
        """Weights of the chosen experts (fp32), and the routing."""
        probs = F.linear(x.float(), self.weight.float()).softmax(dim=-1)
        scores = probs if self.bias is None else probs + self.bias
        chosen = scores.detach().topk(self.per_token, dim=-1).indices
        weights = probs.gather(-1, chosen)
        if self.normalize:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return weights, Routing(probs, chosen)


class Experts(nn.Module):
    """SwiGLUs of equal shape, stacked; gate and up share a matrix. `op` may be replaced from outside."""

    def __init__(self, config: DecoderConfig, numbers: Numbers) -> None:
        super().__init__()
        self.op: ExpertOp = grouped_swiglu
        count, width, hidden = numbers.n_experts, config.d_model, numbers.d_expert
        self.gate_up_proj = nn.Parameter(torch.empty(count, 2 * hidden, width))
        self.down_proj = nn.Parameter(torch.empty(count, width, hidden))

    def forward(
        self,
        x: Float[Tensor, "tokens width"],
        chosen: Int[Tensor, "tokens per_token"],
        weights: Float[Tensor, "tokens per_token"],
    ) -> Float[Tensor, "tokens width"]:
        """Sum over a token's experts of weight * expert(token)."""
        per_token = chosen.shape[1]
        flat = chosen.flatten()
        order = flat.argsort(stable=True)
        back = inverse_permutation(order)
        rows: Tensor = SortRows.apply(x, order, back, per_token)  # type: ignore[no-untyped-call]
        counts = count_tokens(flat, len(self.down_proj))
        output = self.op(rows, counts, self.gate_up_proj, self.down_proj)
        output = SortRows.apply(output, back, order, 1)  # type: ignore[no-untyped-call]
        weighted: Tensor = output.view(*chosen.shape, -1) * weights[..., None].to(output.dtype)
        return weighted.sum(dim=1)


def grouped_swiglu(
    rows: Float[Tensor, "rows width"],
    counts: Int[Tensor, " experts"],
    gate_up: Float[Tensor, "experts twice_hidden width"],
    down: Float[Tensor, "experts width hidden"],
) -> Float[Tensor, "rows width"]:
    """The first counts[0] rows through the first SwiGLU, the next counts[1] through the second, and so on."""
    ends = counts.cumsum(dim=0, dtype=torch.int32)
    gate, up = grouped_product(rows, gate_up.to(rows.dtype), ends).chunk(2, dim=-1)
    return grouped_product(F.silu(gate) * up, down.to(rows.dtype), ends)


def inverse_permutation(order: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """The inverse permutation of `order`."""
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))


class SortRows(torch.autograd.Function):
    """Row n of the result is row order[n] // copies of x.

    The backward pass is a gather and a sum instead of a scatter-add: as fast, and deterministic.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, back: Tensor, copies: int) -> Tensor:
        ctx.save_for_backward(back)
        ctx.copies = copies
        return x[order // copies]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (back,) = ctx.saved_tensors
        rows = grads[0][back]
        return rows.view(-1, ctx.copies, rows.shape[-1]).sum(dim=1), None, None, None


class SparseFeedForward(nn.Module):
    """Router, routed experts and shared experts as a feed-forward."""

    load: Int[Tensor, " experts"]
    """tokens per expert since the last `reset_load`; not saved"""

    def __init__(self, config: DecoderConfig, numbers: Numbers, shared: nn.Module | None) -> None:
        super().__init__()
        self.gate = Router(config, numbers)
        self.experts = Experts(config, numbers)
        self.shared_experts = shared
        self.register_buffer("load", torch.zeros(numbers.n_experts, dtype=torch.int64), persistent=False)

    def forward(
        self, x: Float[Tensor, "batch time width"]
    ) -> tuple[Float[Tensor, "batch time width"], Routing]:
        weights, routing = self.gate(x)
        flat = (x.flatten(0, 1), routing.chosen.flatten(0, 1), weights.flatten(0, 1))
        out: Tensor = self.experts(*flat).view_as(x)
        return (out if self.shared_experts is None else out + self.shared_experts(x)), routing


def count_tokens(chosen: Int[Tensor, " choices"], n_experts: int) -> Int[Tensor, " experts"]:
    """Tokens per expert. Compares instead of using `bincount`, which synchronizes with the device."""
    numbers = torch.arange(n_experts, device=chosen.device)
    return (chosen[:, None] == numbers).sum(dim=0)


def _identity(x: Tensor) -> Tensor:
    """`x` itself: nothing is split."""
    return x


@dataclass(frozen=True)
class TokenShard:
    """The positions of this process where others have the rest of each sequence; set from outside."""

    local_tokens: Callable[[Tensor], Tensor] = _identity
    """[batch, time] -> the positions whose tokens are routed on this process"""
    sum_over_row: Callable[[Tensor], Tensor] = _identity
    """sums over these positions -> sums over the whole sequence, without gradient"""
    sum_over_ranks: Callable[[Tensor], Tensor] = _identity
    """this process's part of a loss -> its sum over ranks, with the gradient of the part"""


def balance_loss_per_row(
    routing: Routing, real_tokens: Bool[Tensor, "batch time"], token_shard: TokenShard | None = None
) -> Float[Tensor, " batch"]:
    """Switch's loss for every row: experts * sum_e share(e) * opinion(e); 1 where all experts are used alike.

    share: of the row's choices, the part that fell on e; opinion: mean probability of e. Both over `real` tokens.
    Taken per row (as DeepSeek-V3 does beside its bias, https://arxiv.org/abs/2412.19437) and not over a batch:
    so it doesn't depend on how a step is cut into micro-batches. Processes that share rows (`share_of`) get parts that
    add up to it.
    """
    over_row = (token_shard or TokenShard()).sum_over_row
    n_experts = routing.probs.shape[-1]
    mask = real_tokens[..., None].float()
    count = over_row(mask.sum(dim=1)).clamp(min=1)
    numbers = torch.arange(n_experts, device=real_tokens.device)
    choices = (routing.chosen[..., None] == numbers).sum(dim=2) * mask
    fraction = over_row(choices.sum(dim=1)) / (count * routing.chosen.shape[-1])
    mean_probs = (routing.probs * mask).sum(dim=1) / count
    return n_experts * (fraction * mean_probs).sum(dim=-1)


def sparse_layers(model: nn.Module) -> list[SparseFeedForward]:
    """All mixture-of-experts feed-forwards of a model, in order."""
    return [part for part in model.modules() if isinstance(part, SparseFeedForward)]


@torch.no_grad()
def update_biases(model: nn.Module, rate: float) -> None:
    """Move the choice's biases against the load since `reset_load`: b += rate * sign(mean load - load).

    Wang et al. 2024, https://arxiv.org/abs/2408.15664: balance without a gradient of its own, once per step.
    """
    for layer in sparse_layers(model):
        if layer.gate.bias is not None:
            load = layer.load.float()
            layer.gate.bias += rate * (load.mean() - load).sign()


def max_load_ratio(model: nn.Module) -> Float[Tensor, ""]:
    """Largest expert load divided by the mean load, in the worst layer; 1 = perfectly balanced."""
    loads = torch.stack([layer.load.float() for layer in sparse_layers(model)])
    return (loads.amax(dim=1) / loads.mean(dim=1).clamp(min=1e-9)).amax()


def reset_load(model: nn.Module) -> None:
    """Set all expert loads to zero."""
    for layer in sparse_layers(model):
        layer.load.zero_()
