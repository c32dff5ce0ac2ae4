"""The mask that is compiled for a GPU, against the plain mask; the GPU itself is asked in tests/gpu."""

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, create_mask

from groundup.model.attention import attend_fused, document_mask
from groundup.parallel.cuda import flex, visibility_rule


def documents(rows: int, time: int) -> Tensor:
    """Several to a row, and padding at the end of one."""
    segments = (torch.rand(rows, time, generator=torch.Generator().manual_seed(0)) < 0.1).int().cumsum(1)
    segments[0, -9:] = -1
    return segments


@pytest.mark.parametrize("window", [0, 1, 5])
def test_pair_by_pair_it_is_the_document_mask(window: int) -> None:
    segments = documents(2, 50)
    mask = create_mask(visibility_rule(segments, window), 2, None, 50, 50, device="cpu")
    assert torch.equal(mask, document_mask(segments, window))


def test_blocks_between_documents_are_never_computed() -> None:
    segments = torch.arange(4).repeat_interleave(128)[None]
    blocks = create_block_mask(visibility_rule(segments, 0), 1, None, 512, 512, device="cpu")
    assert blocks.full_kv_num_blocks is not None
    assert int(blocks.kv_num_blocks.sum() + blocks.full_kv_num_blocks.sum()) == 4


@pytest.mark.filterwarnings("default")  # the compiler warns of its own doings
def test_compiled_it_attends_as_the_fused_kernel_does() -> None:
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, heads, 200, 16, generator=generator) for heads in (4, 2, 2))
    segments, kernel = documents(2, 200), flex()
    with torch.no_grad():
        for seen in (segments, segments.flip(0)):
            out = kernel.attend(q, k, v, kernel.make_mask(seen, 20))
            torch.testing.assert_close(out, attend_fused(q, k, v, document_mask(seen, 20)))
