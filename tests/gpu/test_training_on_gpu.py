"""A training step on the GPU against the plain model on the CPU, and that the host never waits inside it."""

import warnings

import pytest
import torch
from gpu_helpers import decoder, fitted, gradients, loss_of, needs_gpu, rows

from groundup.core.runtime import Runtime
from groundup.model.lora import Lora, attach
from groundup.parallel.hardware import Precision, choose_hardware, matmul_rate, prepare_model
from groundup.train.optimizers.muon import Muon

pytestmark = needs_gpu
TOLERANCE: dict[Precision, float] = {"fp32": 1e-3, "bf16": 5e-2}
"""Largest distance of a gradient from the exact one, as a share of its length."""


def far(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm().clamp(min=1e-12))


@pytest.mark.parametrize("compile", ["on", "off"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_is_that_of_the_plain_model(precision: Precision, compile: str) -> None:
    plain, both = decoder(), rows()
    exact = loss_of(plain, both)
    exact.backward()
    model, hardware = fitted(precision, runtime=Runtime(device="cuda", compile=compile))
    loss = loss_of(model, both.cuda(), hardware)
    loss.backward()
    assert abs(float(loss.detach()) - float(exact.detach())) < TOLERANCE[precision] * float(exact.detach())
    wanted, found = gradients(plain), gradients(model)
    assert found.keys() == wanted.keys()
    assert {
        n: far(found[n], wanted[n]) for n in wanted if far(found[n], wanted[n]) > TOLERANCE[precision]
    } == {}


def test_lora_learns_what_it_does_on_the_cpu() -> None:
    plain, both = decoder(), rows()
    attach(plain, Lora(rank=16))
    model = decoder()
    attach(model, Lora(rank=16))
    hardware = choose_hardware(Runtime(device="cuda"), "fp32")
    prepare_model(model, hardware)
    loss_of(plain, both).backward()
    loss_of(model, both.cuda(), hardware).backward()
    wanted, found = gradients(plain), gradients(model)
    assert found.keys() == wanted.keys()
    assert all(far(found[name], wanted[name]) < 1e-3 for name in wanted if "lora_B" in name)


def test_nothing_in_a_step_waits_for_the_device() -> None:
    model, hardware = fitted()
    optimizer = Muon(lr=0.01, adam_lr=0.01).build(model.named_parameters())
    both = rows().cuda()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss_of(model, both, hardware).backward()
        optimizer.step()

    step()  # compiles, and makes what the optimizer remembers
    step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_same_step_gives_the_same_bits() -> None:
    model, hardware = fitted()
    both, found = rows().cuda(), []
    for _ in range(2):
        model.zero_grad()
        loss_of(model, both, hardware).backward()
        found.append(gradients(model))
    assert {name for name in found[0] if not torch.equal(found[0][name], found[1][name])} <= {
        "model.embed_tokens.weight"  # an embedding's gradient adds up in whatever order rows arrive
    }


def test_new_batches_of_one_shape_compile_nothing_new() -> None:
    model, hardware = fitted()
    loss_of(model, rows().cuda(), hardware).backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for seed in (1, 2):
            loss_of(model, rows(seed=seed).cuda(), hardware).backward()


def test_scoring_rows_is_that_of_the_plain_model() -> None:
    both = rows()
    model, _ = fitted("fp32")
    with torch.no_grad():
        exact = loss_of(decoder(), both)
        assert abs(float(loss_of(model, both.cuda())) - float(exact)) < 1e-3


def test_the_rate_of_products_is_measured_in_bf16() -> None:
    assert matmul_rate(choose_hardware(Runtime(device="cuda"))) > 1e13
