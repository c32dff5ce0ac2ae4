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


class StaticKVCache:
    """A KVCache for `len(lengths)` sequences and at most `capacity` slots, prompts' padding included."""

    def __init__(self, lengths: Int[Tensor, " batch"], capacity: int, device: torch.device) -> None:
        self.capacity = capacity
        self.used = 0
        self._slots = torch.arange(capacity, device=device)
        self._prompt_ends = lengths.to(device)
        self._prompt_slots = int(lengths.max())
        self._new_count = 0
        self._masks: dict[int, Bool[Tensor, "batch 1 time keys"]] = {}
        self._layers: list[tuple[Tensor, Tensor]] = []

    def prefix(self, count: int, capacity: int) -> "StaticKVCache":
        """A cache that begins with the first `count` slots of this one. Only for one sequence without padding."""
        kept = StaticKVCache(torch.tensor([count]), capacity, self._slots.device)
        kept.used = count
        for layer in self._layers:
            grown = tuple(x.new_zeros(*x.shape[:2], capacity, x.shape[3]) for x in layer)
            for new, old in zip(grown, layer, strict=True):
                new[:, :, :count] = old[:, :, :count]
            kept._layers.append((grown[0], grown[1]))
        return kept

    def reserve(self, count: int) -> None:
        """Take the next `count` slots, which the following forward pass will fill."""
        self._new_count, self.used = count, self.used + count
        assert self.used <= self.capacity, f"{self.used} slots wanted of {self.capacity}"
        self._masks.clear()

    def _mask(self, window: int) -> Bool[Tensor, "batch 1 time keys"]:
        """What each new position sees: real tokens up to itself, at most `window` positions back (0 = all)."""
        keys = self._slots[: self.used]
        real = (keys < self._prompt_ends[:, None]) | (keys >= self._prompt_slots)
        new_keys = keys[self.used - self._new_count :]
        mask = real[:, None] & (keys <= new_keys[:, None])[None]
        if window:
            # Answers go on where the prompt ended: the padding between takes no position.
            gap = self._prompt_slots - self._prompt_ends[:, None]
            places = torch.where(keys >= self._prompt_slots, keys - gap, keys)
            mask &= places[:, -self._new_count :, None] - places[:, None] < window
            mask |= (keys == new_keys[:, None])[
                None
            ]  # padding sees itself, or its softmax would be over nothing
        return mask[:, None]

    def cache_update(
        self,
        layer: int,
        k: Float[Tensor, "batch kv_heads time dim"],
        v: Float[Tensor, "batch kv_heads time dim"],
        window: int = 0,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Store one layer's new keys and values in the reserved slots; returns all of them and the mask."""
        if layer == len(self._layers):
            shape = (k.shape[0], k.shape[1], self.capacity, k.shape[3])
            self._layers.append((k.new_zeros(shape), v.new_zeros(shape)))
        if window not in self._masks:
            self._masks[window] = self._mask(window)
        all_k, all_v = self._layers[layer]
        all_k[:, :, self.used - k.shape[2] : self.used] = k
        all_v[:, :, self.used - v.shape[2] : self.used] = v
        return all_k[:, :, : self.used], all_v[:, :, : self.used], self._masks[window]

    def select_rows(self, rows: Int[Tensor, " kept"]) -> None:
        """Keep these sequences, in this order; one that occurs several times is copied."""
        self._prompt_ends = self._prompt_ends[rows]
        self._layers = [(k[rows], v[rows]) for k, v in self._layers]
