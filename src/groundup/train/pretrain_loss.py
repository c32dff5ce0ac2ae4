"""The loss of pretraining: cross-entropy of every next token and, with experts, the balance loss.

in:  a decoder, a micro-batch
out: the micro-batch's part of the step's mean loss per token
"""

import torch
from torch import Tensor

from groundup.model.decoder import Decoder
from groundup.model.losses import Kernel
from groundup.parallel.engine import Loss
from groundup.parallel.reduce_metrics import StepMetrics
from groundup.train.batches import TokenBatch
from groundup.train.validate import token_loss


def pretraining_loss(kernel: Kernel) -> Loss:
    """The loss for an engine; without gradients (validation) only the cross-entropy.

    kernel: as in `losses.cross_entropy`.
    """

    def loss(model: Decoder, batch: TokenBatch) -> tuple[Tensor, StepMetrics]:
        if not torch.is_grad_enabled():
            return token_loss(model, batch), {}
        hidden = model.hidden(batch.ids, batch.segments, positions=batch.positions).flatten(0, 1)
        targets, weights = batch.targets.flatten(), batch.weights.flatten()
        cap = model.config.logit_softcap
        value = model.cross_entropy(hidden, model.head_weight, targets, weights, kernel, cap)[0]
        if model.config.moe is None or model.config.moe.balance != "loss":
            return value, {}
        balance = model.balance_loss(batch.row_weights)
        return value + balance, {"balance_loss": balance}

    return loss
