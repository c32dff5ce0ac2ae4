"""Masks, caches and dtypes: what a position may know of the others."""

from functools import partial

import pytest
import torch
from decoders import PORTABLE, QWEN3, decoder

from groundup.model.attention import attend_fused, document_mask, segments_of
from groundup.model.decoder import Decoder
from groundup.parallel.cpu import attend_blocks, document_mask_bf16

BOS, PAD = 1, 0
IDS = torch.tensor(
    [[BOS, 7, 8, 9, BOS, 20, 21, 22, 23, BOS, 40, 41, PAD, PAD], [BOS, *range(50, 63)]],
)
SEGMENTS = segments_of(IDS, BOS, PAD)


def test_segments_count_documents_and_mark_padding() -> None:
    assert SEGMENTS[0].tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, -1, -1]


@pytest.mark.parametrize("name", PORTABLE)
def test_a_document_in_a_packed_row_is_computed_as_if_it_were_alone(name: str) -> None:
    model = decoder(PORTABLE[name])
    with torch.no_grad():
        packed = model(IDS, SEGMENTS)[0]
        for start, end in ((0, 4), (4, 9), (9, 12)):
            torch.testing.assert_close(packed[start:end], model(IDS[:1, start:end])[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", PORTABLE)
def test_poisoned_neighbours_and_padding_change_nothing(name: str) -> None:
    model = decoder(PORTABLE[name])
    poisoned = IDS.clone()
    poisoned[0, 5:9] = torch.tensor([90, 91, 92, 93])
    poisoned[0, 12:] = 95
    with torch.no_grad():
        calm = model.hidden(IDS, SEGMENTS)[0]
        # Not NaN: a weight of zero times NaN is NaN, in every implementation of attention.
        model.model.embed_tokens.weight[90:] = 1e15
        rough = model.hidden(poisoned, SEGMENTS)[0]
    others = [0, 1, 2, 3, 4, 9, 10, 11]
    torch.testing.assert_close(calm[others], rough[others], atol=1e-6, rtol=1e-6)
    assert (calm[5:9] - rough[5:9]).abs().amin(dim=0).max() > 0.1


@pytest.mark.parametrize("name", PORTABLE)
def test_no_gradient_flows_from_a_document_to_its_neighbour(name: str) -> None:
    model = decoder(PORTABLE[name])
    model.hidden(IDS, SEGMENTS)[0, 4:9].sin().sum().backward()
    grad = model.model.embed_tokens.weight.grad
    assert grad is not None
    assert grad[[7, 8, 9, 40, 41, PAD]].abs().sum() == 0
    assert (grad[[20, 21, 22, 23]].abs().sum(dim=1) > 0).all()


def test_the_future_is_unknown() -> None:
    model = decoder(QWEN3)
    changed = IDS.clone()
    changed[:, 10:] = 77
    with torch.no_grad():
        assert torch.equal(model(IDS)[:, :10], model(changed)[:, :10])


@pytest.mark.parametrize(("time", "blocks"), [(16, 8), (64, 8), (37, 8), (37, 0), (300, 0)])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_in_blocks_equals_the_fused_kernel(time: int, blocks: int, kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(time)
    q = torch.randn(2, 4, time, 8, generator=generator, requires_grad=True)
    k, v = (torch.randn(2, kv_heads, time, 8, generator=generator, requires_grad=True) for _ in range(2))
    starts = torch.rand(2, time, generator=generator) < 0.1
    segments = starts.int().cumsum(dim=1)
    grads = []
    for attend, seen in (
        (partial(attend_blocks, blocks=blocks), document_mask_bf16(segments)),
        (attend_fused, document_mask(segments)),
    ):
        out = attend(q, k, v, seen)
        grads.append((out, *torch.autograd.grad(out.sin().sum(), (q, k, v))))
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_computing_in_bf16_keeps_fp32_parameters_and_stays_near() -> None:
    wide, narrow = decoder(QWEN3), decoder(QWEN3)
    narrow.compute_dtype = torch.bfloat16
    assert narrow.hidden(IDS).dtype == torch.bfloat16
    assert {parameter.dtype for parameter in narrow.parameters()} == {torch.float32}
    with torch.no_grad():
        a, b = wide(IDS), narrow(IDS)
    assert b.dtype == torch.float32
    assert ((a - b).norm() / a.norm()) < 0.03


def test_weights_depend_on_seed_and_name_alone() -> None:
    one, two, other = Decoder(QWEN3), Decoder(QWEN3), Decoder(QWEN3)
    torch.manual_seed(1)
    one.init_weights(7)
    torch.manual_seed(2)
    two.init_weights(7)
    other.init_weights(8)
    key = "model.layers.0.mlp.up_proj.weight"
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.state_dict()[key], other.state_dict()[key])
