"""What is chosen for a runtime, and that a fitted model computes the same."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from groundup.core.errors import GroundupError
from groundup.core.runtime import ActivationCheckpointing, Runtime
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.model.losses import chunk_with_gradient, cross_entropy
from groundup.parallel import hardware
from groundup.parallel.hardware import (
    MICRO_BATCH_TOKENS,
    Hardware,
    choose_attention_kernel,
    choose_hardware,
    compiled,
    matmul_rate,
    micro_batch_rows,
    prepare_model,
)

CPU = Runtime(device="cpu", threads=1, compile="off")
TINY = DecoderConfig(96, 64, 2, 4, 2, 16, 96)


def test_precision_is_what_was_asked_for_or_what_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_hardware(CPU, "fp32").dtype == torch.float32
    assert choose_hardware(CPU, "bf16").dtype == torch.bfloat16
    monkeypatch.setattr(hardware, "cpu_has_fast_bf16", lambda: False)
    plain = choose_hardware(CPU)
    assert plain.precision == "fp32"
    assert "no fast bf16" in plain.reason
    monkeypatch.setattr(hardware, "cpu_has_fast_bf16", lambda: True)
    assert choose_hardware(CPU).precision == "bf16"


def test_the_reason_says_why_it_is_not_compiled() -> None:
    found = choose_hardware(CPU)
    assert not found.can_compile
    assert found.reason.endswith('eager, since runtime.compile = "off"')


def test_attention_is_chosen_for_device_shape_and_compiler() -> None:
    config, cuda = TINY, torch.device("cuda")
    narrow = DecoderConfig(96, 32, 2, 4, 2, 8, 96)
    gpu = Hardware(cuda, torch.bfloat16, 1, True, "")
    names = [
        choose_attention_kernel(config, gpu)[0].name,
        choose_attention_kernel(narrow, gpu)[0].name,
        choose_attention_kernel(config, replace(gpu, can_compile=False))[0].name,
        choose_attention_kernel(config, replace(gpu, device=torch.device("cpu")))[0].name,
    ]
    assert names == ["flex", "fused", "fused", "blocks"]
    assert "less than 16 numbers" in choose_attention_kernel(narrow, gpu)[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(GroundupError, match=r'runtime\.device = "cuda", but PyTorch sees no CUDA device'):
        choose_hardware(Runtime(device="cuda"))


def test_the_rate_of_matrix_products_is_a_plausible_number() -> None:
    assert 1e8 < matmul_rate(choose_hardware(CPU, "fp32"), size=128, seconds=0.02) < 1e16


def test_micro_batches_divide_the_step_and_keep_to_the_site() -> None:
    cpu = torch.device("cpu")
    assert micro_batch_rows(Runtime(), TINY, MICRO_BATCH_TOKENS["cpu"] // 8, 16, cpu) == 8
    assert micro_batch_rows(Runtime(micro_batch=5), TINY, 512, 16, cpu) == 4
    assert micro_batch_rows(Runtime(micro_batch=5), TINY, 512, 7, cpu) == 1
    assert micro_batch_rows(Runtime(), TINY, 10**6, 16, cpu) == 1


def test_on_a_gpu_micro_batches_keep_to_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    config, cuda = DecoderConfig(32_000, 2048, 16, 16, 4, 128, 5632, max_seq_len=4096), torch.device("cuda")

    def rows(gigabytes: int, activation_checkpointing: ActivationCheckpointing = "none") -> int:
        gpu = SimpleNamespace(total_memory=gigabytes * 2**30)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: gpu)
        return micro_batch_rows(
            Runtime(activation_checkpointing=activation_checkpointing), config, 4096, 64, cuda
        )

    assert rows(139) == 8  # as many as keep it busy
    assert rows(60) == 2
    assert rows(60, "selective") == 4
    assert rows(60, "full") == 8
    assert rows(16) == 1


def step(model: Decoder, ids: torch.Tensor, kernel: object) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    segments = (ids == 1).int().cumsum(dim=1)
    hidden = model.hidden(ids, segments).flatten(0, 1)
    weights = torch.ones(ids.numel(), device=ids.device)
    loss, _ = cross_entropy(hidden, model.head_weight, ids.flatten(), weights, kernel)  # type: ignore[arg-type]
    loss.backward()
    return loss.detach().cpu(), {n: p.grad.cpu() for n, p in model.named_parameters() if p.grad is not None}


def close(runtime: Runtime) -> None:
    """A fitted model against the plain one: loss and every gradient in fp32."""
    config = DecoderConfig(96, 64, 2, 4, 2, 16, 96, max_seq_len=64)
    ids = torch.randint(2, 96, (4, 64), generator=torch.Generator().manual_seed(0))
    ids[:, [0, 20, 41]] = 1
    plain, fitted = Decoder(config), Decoder(config)
    plain.init_weights(0)
    fitted.init_weights(0)
    chosen = choose_hardware(runtime, "fp32")
    prepare_model(fitted, chosen)
    expected, wanted = step(plain, ids, None)
    loss, grads = step(fitted, ids.to(chosen.device), compiled(chunk_with_gradient, chosen))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, wanted[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.filterwarnings("default")  # the compiler warns of its own doings
def test_a_compiled_model_computes_what_the_plain_one_does() -> None:
    runtime = Runtime(device="cpu", threads=1)
    if not choose_hardware(runtime, "fp32").can_compile:
        pytest.skip("no C++ compiler here")
    close(runtime)
