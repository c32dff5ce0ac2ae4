"""FlexAttention against the fused kernel with a mask: results, gradients, and what may not be seen."""

import pytest
import torch
from gpu_helpers import needs_gpu
from torch import Tensor

from groundup.model.attention import attend_fused, document_mask
from groundup.parallel.cuda import flex

pytestmark = needs_gpu


def inputs(time: int, dim: int, dtype: torch.dtype, kv_heads: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(2, heads, time, dim, generator=generator) for heads in (4, kv_heads, kv_heads)]
    return [tensor.to("cuda", dtype).requires_grad_() for tensor in made]


def documents(time: int, mean: int = 40) -> Tensor:
    starts = torch.rand(2, time, generator=torch.Generator().manual_seed(1)) < 1 / mean
    segments = starts.int().cumsum(1, dtype=torch.int32)
    segments[0, -20:] = -1
    return segments.cuda()


@pytest.mark.parametrize(
    ("time", "dim", "window", "kv_heads", "dtype"),
    [
        (256, 64, 0, 2, torch.bfloat16),
        (256, 128, 48, 4, torch.bfloat16),
        (300, 16, 0, 1, torch.bfloat16),
        (300, 64, 48, 2, torch.float32),
    ],
)
def test_results_and_gradients_are_those_of_the_fused_kernel(
    time: int, dim: int, window: int, kv_heads: int, dtype: torch.dtype
) -> None:
    segments, kernel = documents(time), flex()
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs(time, dim, dtype, kv_heads)]
    wanted = attend_fused(*exact, document_mask(segments, window))  # type: ignore[misc, call-arg]
    grad = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(2)).to(wanted)
    wanted.backward(grad)
    ours = inputs(time, dim, dtype, kv_heads)
    out = kernel.attend(*ours, kernel.make_mask(segments, window))  # type: ignore[misc, call-arg]
    out.backward(grad.to(dtype))
    tolerance = 3e-2 if dtype == torch.bfloat16 else 1e-2
    torch.testing.assert_close(out.double(), wanted, rtol=tolerance, atol=tolerance)
    for one, other in zip(ours, exact, strict=True):
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=tolerance, atol=tolerance)


def test_other_documents_and_padding_are_never_read() -> None:
    segments, kernel = documents(300), flex()
    q, k, v = (tensor.detach() for tensor in inputs(300, 64, torch.bfloat16))
    first = segments == segments[:, :1]
    clean = kernel.attend(q, k, v, kernel.make_mask(segments, 0))
    poisoned = [torch.where(first[:, None, :, None], tensor, 1e4) for tensor in (k, v)]
    dirty = kernel.attend(q, *poisoned, kernel.make_mask(segments, 0))
    seen = first[:, None, :, None].expand_as(clean)
    assert torch.equal(clean[seen], dirty[seen])


def test_documents_cost_no_more_than_a_whole_row() -> None:
    """Many short documents leave most blocks out, so it is rather faster."""
    kernel, time = flex(), 4096
    q, k, v = (tensor.detach() for tensor in inputs(time, 128, torch.bfloat16))
    short = documents(time, mean=300)
    milliseconds = {}
    for name, segments in (("documents", short), ("whole", torch.zeros_like(short))):
        mask = kernel.make_mask(segments, 0)
        times = []
        for _ in range(20):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            kernel.attend(q, k, v, mask)
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end))
        milliseconds[name] = min(times)
    assert milliseconds["documents"] < 1.1 * milliseconds["whole"]
