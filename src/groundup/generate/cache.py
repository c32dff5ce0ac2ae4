"""Keys and values of a batch of sequences of different length, in memory of a fixed size.

in:  each layer's new keys and values
out: all keys and values so far, and which of them each new position may see

Prompts are padded on the right, and every sequence writes its next token into the same slot. What lies between
a prompt's end and the first written slot is masked for good; rotary positions come from outside, so a
sequence doesn't notice the gap.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class StaticCache:
    """A KVCache for `len(lengths)` sequences and at most `capacity` slots, prompts' padding included."""

    def __init__(self, lengths: Int[Tensor, " batch"], capacity: int, device: torch.device) -> None:
        self.capacity = capacity
        self.used = 0
        self._slots = torch.arange(capacity, device=device)
        self._prompt_ends = lengths.to(device)
        self._prompt_slots = int(lengths.max())
        self._mask: Bool[Tensor, "batch 1 time keys"] = torch.empty(0)
        self._layers: list[tuple[Tensor, Tensor]] = []

    def reserve(self, count: int) -> None:
        """Take the next `count` slots, which the following forward pass will fill."""
        start, self.used = self.used, self.used + count
        assert self.used <= self.capacity, f"{self.used} slots wanted of {self.capacity}"
        keys = self._slots[: self.used]
        real = (keys < self._prompt_ends[:, None]) | (keys >= self._prompt_slots)
        before = keys <= self._slots[start : self.used, None]
        self._mask = (real[:, None] & before[None])[:, None]

    def update(
        self,
        layer: int,
        k: Float[Tensor, "batch kv_heads time dim"],
        v: Float[Tensor, "batch kv_heads time dim"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Store one layer's new keys and values in the reserved slots; returns all of them and the mask."""
        if layer == len(self._layers):
            shape = (k.shape[0], k.shape[1], self.capacity, k.shape[3])
            self._layers.append((k.new_zeros(shape), v.new_zeros(shape)))
        all_k, all_v = self._layers[layer]
        all_k[:, :, self.used - k.shape[2] : self.used] = k
        all_v[:, :, self.used - v.shape[2] : self.used] = v
        return all_k[:, :, : self.used], all_v[:, :, : self.used], self._mask

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Forget all sequences but these."""
        self._prompt_ends = self._prompt_ends[rows]
        self._layers = [(k[rows], v[rows]) for k, v in self._layers]
