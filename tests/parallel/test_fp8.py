"""Products in fp8, on a CPU's slow kernel: against the formats' own error bounds and plain casts."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.core.errors import GroundupError
from groundup.core.runtime import Runtime
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.model.linear import PLAIN, Linear
from groundup.model.losses import cross_entropy
from groundup.parallel.fp8 import Fp8Op, is_fp8, quantized, use_fp8
from groundup.parallel.hardware import choose_hardware

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
ROUNDING = {E4M3: 2**-4, E5M2: 2**-3}
"""Largest relative error of rounding to 3 and 2 bits of mantissa."""


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fp8_linear(weight: Tensor) -> Linear:
    linear = Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.op = Fp8Op(PLAIN)
    linear.weight.data.copy_(weight)
    return linear


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x as it is after fp8, written without `quantized`."""
    factor = torch.finfo(dtype).max / x.abs().max()
    return (x * factor).to(dtype).float() / factor


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_numbers_fill_the_format_whatever_their_size(dtype: torch.dtype, size: float) -> None:
    x = size * noise(64, 64)
    small, scale = quantized(x, dtype)
    assert small.float().abs().max() == torch.finfo(dtype).max
    near = (small.float() * scale - x).abs() <= ROUNDING[dtype] * x.abs() + 1e-5 * size
    assert near.all()


def test_zeros_stay_zeros_and_what_is_not_finite_shows() -> None:
    small, scale = quantized(torch.zeros(16, 16), E4M3)
    assert (small.float() * scale == 0).all()
    for bad in (float("nan"), float("inf")):
        x = noise(16, 16)
        x[3, 4] = bad
        assert not F.linear(*(a.float() * s for a, s in [quantized(x, E4M3)] * 2)).isfinite().all()


def test_a_product_is_within_the_bound_of_its_rounding() -> None:
    x, weight = noise(32, 64), noise(48, 64, seed=1)
    out = fp8_linear(weight)(x)
    bound = (2 * ROUNDING[E4M3] + ROUNDING[E4M3] ** 2) * (x.abs() @ weight.abs().T) + 1e-2
    assert ((out - x @ weight.T).abs() <= bound).all()
    torch.testing.assert_close(out, cast(x, E4M3) @ cast(weight, E4M3).T, rtol=1e-3, atol=1e-3)


def test_gradients_are_the_products_of_rounded_factors() -> None:
    x, weight, grad = noise(2, 16, 64).requires_grad_(), noise(48, 64, seed=1), noise(2, 16, 48, seed=2)
    linear = fp8_linear(weight)
    linear(x).backward(grad)
    rows, slope = cast(x.detach().flatten(0, 1), E4M3), cast(grad.flatten(0, 1), E5M2)
    assert x.grad is not None
    torch.testing.assert_close(x.grad.flatten(0, 1), slope @ cast(weight, E4M3), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(linear.weight.grad, slope.T @ rows, rtol=1e-3, atol=1e-3)


CONFIG = DecoderConfig(96, 32, 4, 2, 1, 16, 64, max_seq_len=32, value_embeddings=True)


def test_only_inner_layers_change_and_no_parameter_does() -> None:
    model = Decoder(CONFIG)
    before = dict(model.named_parameters())
    use_fp8(model)
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] for name in before)
    changed = {name for name, part in model.named_modules() if isinstance(part, Linear) and is_fp8(part)}
    parts = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
    parts += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    assert changed == {f"model.layers.{layer}.{part}" for layer in (1, 2) for part in parts}


def test_scores_do_not_depend_on_it() -> None:
    linear, x = fp8_linear(noise(48, 64)), noise(16, 64, seed=1).bfloat16()
    with torch.no_grad():
        assert torch.equal(linear(x), PLAIN(x, linear.map)[0])


def losses(fp8: bool) -> list[float]:
    model = Decoder(CONFIG)
    model.init_weights(0)
    if fp8:
        use_fp8(model)
    ids = torch.randint(0, 96, (4, 33), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    found = []
    for _ in range(20):
        hidden = model.hidden(ids[:, :-1]).flatten(0, 1)
        loss, total = cross_entropy(hidden, model.head_weight, ids[:, 1:].flatten(), torch.ones(128))
        optimizer.zero_grad()
        (loss / total).backward()
        optimizer.step()
        found.append(float(loss.detach() / total))
    return found


def test_a_model_learns_as_well_as_in_full_precision() -> None:
    exact, rounded = losses(fp8=False), losses(fp8=True)
    assert exact[-1] < 0.7 * exact[0]
    assert rounded != exact
    assert abs(rounded[-1] - exact[-1]) < 0.05 * (exact[0] - exact[-1])


def test_it_says_what_it_needs() -> None:
    with pytest.raises(GroundupError, match=r'precision = "fp8", but this runs on a CPU\. .* 8\.9'):
        choose_hardware(Runtime(device="cpu"), "fp8")
    with pytest.raises(GroundupError, match="multiple of 16 tokens, got 15"):
        fp8_linear(noise(16, 16))(noise(3, 5, 16))
