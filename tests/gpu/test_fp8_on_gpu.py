"""fp8 on a GPU that multiplies it: gradients near the exact ones, loss within noise, faster where it pays."""

import pytest
import torch
from gpu_helpers import decoder, fitted, gradients, loss_of, needs_gpu, rows

from groundup.core.runtime import Runtime
from groundup.model.config import DecoderConfig
from groundup.parallel.fp8 import CAPABILITY
from groundup.parallel.hardware import Precision

pytestmark = [
    *needs_gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or torch.cuda.get_device_capability() < CAPABILITY,
        reason="needs a GPU that multiplies fp8",
    ),
]


def losses(precision: Precision, steps: int = 60) -> list[float]:
    model, hardware = fitted(precision)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    found = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = loss_of(model, rows(seed=step % 4).cuda(), hardware)
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found


@pytest.mark.parametrize("compile", ["on", "off"])
def test_gradients_are_near_the_exact_ones(compile: str) -> None:
    plain, both = decoder(), rows()
    loss_of(plain, both).backward()
    model, hardware = fitted("fp8", runtime=Runtime(device="cuda", compile=compile))
    assert hardware.precision == "fp8"
    loss_of(model, both.cuda(), hardware).backward()
    wanted, found = gradients(plain), gradients(model)
    for name in wanted:
        assert float((found[name] - wanted[name]).norm()) < 0.3 * float(wanted[name].norm()) + 1e-6, name


def test_it_learns_as_bf16_does() -> None:
    bf16, fp8 = losses("bf16"), losses("fp8")
    assert bf16[-1] < 0.8 * bf16[0]
    assert abs(fp8[-1] - bf16[-1]) < 0.05 * (bf16[0] - bf16[-1])


def seconds(precision: Precision) -> float:
    """Of a step of wide layers, the fastest of several."""
    config = DecoderConfig(512, 4096, 8, 32, 8, 128, 11264, max_seq_len=2048)
    model, hardware = fitted(precision, config)
    both, times = rows(8, 2048).cuda(), []
    for _ in range(8):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        loss_of(model, both, hardware).backward()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1000)
        model.zero_grad()
    return min(times)


def test_it_is_faster_where_layers_are_wide() -> None:
    assert seconds("fp8") < 0.95 * seconds("bf16")
