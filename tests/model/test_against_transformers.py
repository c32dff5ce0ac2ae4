"""The decoder against transformers' Qwen3 and Llama, which read our checkpoints as they are."""

from pathlib import Path

import pytest
import torch
from decoders import BOTH, decoder
from transformers import AutoModelForCausalLM, LlamaForCausalLM, Qwen3ForCausalLM

from groundup.model.checkpoint import load_decoder, save_model

KINDS = {"qwen3": Qwen3ForCausalLM, "llama": LlamaForCausalLM}
IDS = torch.randint(0, 96, (3, 64), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", BOTH)
def test_transformers_reads_our_folder_and_computes_the_same_logits(name: str, tmp_path: Path) -> None:
    ours = decoder(BOTH[name])
    save_model(tmp_path, ours)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert isinstance(theirs, KINDS[name])
    with torch.no_grad():
        expected = theirs(IDS).logits
        assert expected.std() > 0.5
        torch.testing.assert_close(ours(IDS), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", BOTH)
def test_we_read_the_folder_that_transformers_writes(name: str, tmp_path: Path) -> None:
    ours = decoder(BOTH[name], seed=5)
    save_model(tmp_path / "ours", ours)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    theirs.save_pretrained(tmp_path / "theirs")
    again = load_decoder(tmp_path / "theirs")
    assert again.config == ours.config
    with torch.no_grad():
        assert torch.equal(again(IDS), ours(IDS))


@pytest.mark.parametrize("name", BOTH)
def test_gradients_equal_those_of_transformers(name: str, tmp_path: Path) -> None:
    ours = decoder(BOTH[name])
    save_model(tmp_path, ours)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    for model in (ours, theirs):
        out = model(IDS)
        logits = out if isinstance(out, torch.Tensor) else out.logits
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).backward()
    expected = {key: value.grad for key, value in theirs.named_parameters()}
    for key, value in ours.named_parameters():
        torch.testing.assert_close(value.grad, expected[key], atol=1e-5, rtol=1e-4, msg=key)
