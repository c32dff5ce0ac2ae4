"""Recomputing changes what is kept, and nothing else."""

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from groundup.core.runtime import ActivationCheckpointing
from groundup.model.config import DecoderConfig, MoE
from groundup.model.decoder import Decoder
from groundup.parallel.activation_checkpoint import checkpoint_activations

CONFIG = DecoderConfig(
    96, 32, 3, 4, 2, 8, 96, max_seq_len=64, windows=(16, 0, 16), value_embeddings=True, zero_init=False
)
SPARSE = DecoderConfig(96, 32, 2, 4, 4, 8, 96, max_seq_len=64, moe=MoE(4, 2, 32))
TOKENS = 4 * 64


class Living(TorchDispatchMode):
    """Counts the bytes of tensors made by operations, as long as something refers to them."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self._known: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self._known:
                storage = tensor.untyped_storage()
                self._known[storage._cdata] = storage
                self.bytes += storage.nbytes()
                weakref.finalize(storage, self._gone, storage.nbytes())
        return out

    def _gone(self, size: int) -> None:
        self.bytes -= size


def step(how: ActivationCheckpointing, config: DecoderConfig = CONFIG) -> tuple[dict[str, Tensor], int]:
    """Gradients, and what lives between forward and backward."""
    model = Decoder(config)
    model.init_weights(0)
    checkpoint_activations(model, how)
    ids = torch.randint(2, 96, (4, 64), generator=torch.Generator().manual_seed(0))
    ids[:, ::20] = 1
    with Living() as living:
        hidden = model.hidden(ids, (ids == 1).int().cumsum(1))
        kept = living.bytes
        hidden.square().mean().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, kept


@pytest.mark.parametrize("how", ["selective", "full"])
@pytest.mark.parametrize("config", [CONFIG, SPARSE], ids=["dense", "sparse"])
def test_gradients_have_the_same_bits(how: ActivationCheckpointing, config: DecoderConfig) -> None:
    plain, again = step("none", config)[0], step(how, config)[0]
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def test_less_is_kept_the_more_is_recomputed() -> None:
    kept = {how: step(how)[1] for how in ("none", "selective", "full")}
    assert kept["selective"] < 0.6 * kept["none"]
    assert kept["full"] < 0.5 * kept["selective"]


def test_names_stay_and_scoring_without_gradients_too() -> None:
    model, ids = Decoder(CONFIG), torch.arange(64)[None]
    names = list(model.state_dict())
    with torch.no_grad():
        expected = model(ids)
        checkpoint_activations(model, "full")
        assert torch.equal(model(ids), expected)
    assert list(model.state_dict()) == names
