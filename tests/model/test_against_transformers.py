"""The decoder against transformers' classes, which read our checkpoints as they are."""

import pytest
import torch
from decoders import CONTEXT, PORTABLE, decoder
from transformers import AutoModelForCausalLM, PreTrainedModel

from groundup.infer.kv_cache import StaticKVCache
from groundup.model.architectures import Architecture
from groundup.model.checkpoint import save_model
from groundup.model.decoder import Decoder
from groundup.model.hf_config import architecture_of

IDS = torch.randint(0, 96, (3, 64), generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=PORTABLE, scope="module")
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Decoder, PreTrainedModel]:
    """Our decoder, and what transformers makes of its folder."""
    ours = decoder(PORTABLE[request.param])
    folder = tmp_path_factory.mktemp(request.param)
    save_model(folder, ours)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    part: type[Architecture] = architecture_of(ours.config)
    assert type(theirs).__name__ == part.hf_class
    return ours, theirs


def test_transformers_computes_our_logits(pair: tuple[Decoder, PreTrainedModel]) -> None:
    ours, theirs = pair
    with torch.no_grad():
        for ids in (IDS, IDS[:, : CONTEXT - 3]):
            expected = theirs(ids).logits
            assert expected.std() > 0.5
            torch.testing.assert_close(ours(ids), expected, atol=1e-4, rtol=0)


def test_our_cache_gives_the_logits_of_transformers(pair: tuple[Decoder, PreTrainedModel]) -> None:
    ours, theirs = pair
    # Longer than every window and the scaled contexts; the rest token by token.
    first, found = 58, []
    cache = StaticKVCache(torch.full((3,), first), capacity=64, device=torch.device("cpu"))
    with torch.no_grad():
        for start, end in ((0, first), *((at, at + 1) for at in range(first, 64))):
            cache.reserve(end - start)
            found.append(ours(IDS[:, start:end], cache=cache, positions=torch.arange(start, end)[None]))
        torch.testing.assert_close(torch.cat(found, dim=1), theirs(IDS).logits, atol=1e-4, rtol=0)


def test_gradients_equal_those_of_transformers(pair: tuple[Decoder, PreTrainedModel]) -> None:
    ours, theirs = pair
    for model in (ours, theirs):
        out = model(IDS)
        logits = out if isinstance(out, torch.Tensor) else out.logits
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).backward()
    own = {name: parameter.grad for name, parameter in ours.named_parameters()}
    assert all(grad is not None for grad in own.values())
    # In memory transformers stacks experts as we do; GPT-2 and Phi-3 have names and shapes of their own.
    if ours.config.architecture in ("gpt2", "phi3"):
        own = architecture_of(ours.config).tensors_to_hf(ours.config, own)
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert own.keys() == expected.keys()
    for name, grad in own.items():
        torch.testing.assert_close(grad, expected[name], atol=1e-5, rtol=1e-4, msg=name)
