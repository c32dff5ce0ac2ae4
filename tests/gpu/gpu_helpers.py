"""A small decoder and batches with several documents to a row, for the tests that need a CUDA device."""

import pytest
import torch
from torch import Tensor

from groundup.core.runtime import Runtime
from groundup.model.attention import segments_of
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.model.losses import chunk_with_gradient, cross_entropy
from groundup.parallel.hardware import Hardware, Precision, choose_hardware, compiled, prepare_model

BOS, PAD = 1, 0
CONFIG = DecoderConfig(512, 128, 4, 4, 2, 32, 256, max_seq_len=320, windows=(64, 0, 64, 0))
needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("default"),  # the compiler warns of its own doings
]


def rows(count: int = 4, time: int = 320, vocab: int = 512, seed: int = 0) -> Tensor:
    """Ids of documents of about 60 tokens each; one row ends in padding. time + 1 wide."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, vocab, (count, time + 1), generator=generator)
    ids[torch.rand(ids.shape, generator=generator) < 1 / 60] = BOS
    ids[:, 0] = BOS
    ids[0, -30:] = PAD
    return ids


def decoder(config: DecoderConfig = CONFIG) -> Decoder:
    model = Decoder(config)
    model.init_weights(0)
    return model


def fitted(
    precision: Precision = "bf16", config: DecoderConfig = CONFIG, runtime: Runtime | None = None
) -> tuple[Decoder, Hardware]:
    hardware = choose_hardware(runtime or Runtime(device="cuda"), precision)
    model = decoder(config)
    prepare_model(model, hardware)
    return model, hardware


def loss_of(model: Decoder, both: Tensor, hardware: Hardware | None = None) -> Tensor:
    """Mean loss of rows [count, time + 1], which lie where the model does."""
    ids, targets = both[:, :-1], both[:, 1:]
    weights = ((targets != PAD) & (targets != BOS)).float().flatten()
    kernel = None if hardware is None else compiled(chunk_with_gradient, hardware)
    hidden = model.hidden(ids, segments_of(ids, BOS, PAD)).flatten(0, 1)
    loss, total = cross_entropy(hidden, model.head_weight, targets.flatten(), weights, kernel)
    return loss / total


def gradients(model: Decoder) -> dict[str, Tensor]:
    """Of every parameter, on the CPU."""
    return {name: p.grad.float().cpu() for name, p in model.named_parameters() if p.grad is not None}
