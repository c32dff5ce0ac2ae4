"""Prompts -> completions: prefill once, then one token at a time for the whole batch.

in:  prompts (lists of ids, any lengths), how to sample, a seed
out: for each prompt its new ids, their log-probabilities, and why it ended

What a prompt gets depends on its own ids, the seed and its key, not on the batch it's in (up to the rounding of
matrix products of other shapes). Rollouts, evaluation and chat are the three users.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.infer.kv_cache import StaticKVCache
from groundup.infer.sampling import Sampling, log_probabilities, next_tokens, uniforms
from groundup.model.decoder import Decoder

Key = int | str


@dataclass(frozen=True)
class Completion:
    """An answer. When `finish` is "stop", the last of `ids` is the stop id that ended it.

    log_probs: of each id under softmax(logits / temperature) over the whole vocabulary, whatever top-k and
    top-p left out; at temperature 0 those of temperature 1.
    """

    ids: list[int]
    log_probs: list[float]
    finish: Literal["stop", "length"]

    @property
    def content(self) -> list[int]:
        """The ids without the stop id."""
        return self.ids[:-1] if self.finish == "stop" else self.ids


@dataclass
class _Sequence:
    """One prompt on its way. `numbers` are its own random numbers, one per position."""

    place: int
    prompt: list[int]
    room: int
    numbers: list[float]
    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    stopped: bool = False

    @property
    def done(self) -> bool:
        return self.stopped or len(self.ids) >= self.room


class PrefixCache:
    """Keys and values of the latest sequence that was generated: a prompt that begins like it computes only the rest.

    The model's weights must not change while it is used.
    """

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._cache: StaticKVCache | None = None

    def keep(self, cache: StaticKVCache, ids: list[int]) -> None:
        """Remember a cache that holds `ids`, one per slot."""
        self._cache, self._ids = cache, ids

    def take(self, prompt: list[int], capacity: int) -> tuple[StaticKVCache | None, int]:
        """A cache of the longest common prefix, and its length; at least the last id of `prompt` is left out."""
        pairs = zip(self._ids, prompt[:-1], strict=False)
        count = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(self._ids), len(prompt) - 1))
        cache = self._cache.prefix(count, capacity) if self._cache is not None and count else None
        return cache, count if cache is not None else 0


class Engine:
    """Generates with `model`, whose weights it reads afresh on every call.

    stop: ids that end an answer. pad: any id; fills up shorter prompts, and nothing sees it.
    max_seq_len: prompt and answer together never get longer. max_batch: prompts computed side by side.
    """

    def __init__(
        self, model: Decoder, stop: set[int], pad: int, max_seq_len: int, max_batch: int = 64
    ) -> None:
        self.model = model
        self.stop = frozenset(stop)
        self.pad = pad
        self.max_seq_len = max_seq_len
        self.max_batch = max_batch

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        keys: Sequence[Key] | None = None,
        on_done: Callable[[int], None] | None = None,
    ) -> list[Completion]:
        """One completion per prompt, in the prompts' order.

        keys: what names each prompt's random numbers; default its index. on_done(n): n more prompts are done.
        Raises ValueError for an empty prompt, or one that leaves no room for an answer.
        """
        sampling = Sampling(temperature, top_k, top_p)
        names = range(len(prompts)) if keys is None else keys
        waiting = [
            self._sequence(i, prompt, max_new_tokens, seed, name)
            for i, (prompt, name) in enumerate(zip(prompts, names, strict=True))
        ]
        # Neighbours in length share a batch, so that little is padded.
        ordered = sorted(waiting, key=lambda one: (len(one.prompt), one.place))
        for start in range(0, len(ordered), self.max_batch):
            batch = ordered[start : start + self.max_batch]
            for _ in self._decode(batch, sampling):
                pass
            if on_done is not None:
                on_done(len(batch))
        return [Completion(one.ids, one.log_probs, "stop" if one.stopped else "length") for one in waiting]

    def stream(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        key: Key = 0,
        prefix: PrefixCache | None = None,
    ) -> Iterator[int]:
        """Yield the ids of one answer as they are made, without the stop id.

        prefix: keys and values of the previous answer's conversation, replaced by those of this one.
        """
        one = self._sequence(0, prompt, max_new_tokens, seed, key)
        for _ in self._decode([one], Sampling(temperature, top_k, top_p), prefix):
            if not one.stopped:
                yield one.ids[-1]

    def _sequence(
        self, place: int, prompt: Sequence[int], max_new_tokens: int, seed: int, key: Key
    ) -> _Sequence:
        room = min(max_new_tokens, self.max_seq_len - len(prompt))
        if not prompt:
            raise ValueError(f"prompt {place} is empty: begin it with the id that begins a text")
        if room < 1:
            raise ValueError(
                f"prompt {place} has {len(prompt)} tokens and max_new_tokens = {max_new_tokens}: "
                f"nothing fits into {self.max_seq_len} tokens"
            )
        return _Sequence(place, list(prompt), room, uniforms(seed, key, room).tolist())

    def _decode(
        self, batch: list[_Sequence], sampling: Sampling, prefix: PrefixCache | None = None
    ) -> Iterator[None]:
        """Fill in `batch` token by token; yields after each. prefix: only for a batch of one."""
        device = self.model.head_weight.device
        cache, logits, lengths = self._prefill(batch, device, prefix)
        alive, positions = batch, lengths.to(device)
        while True:
            if prefix is not None:
                prefix.keep(cache, batch[0].prompt + batch[0].ids)
            tokens = self._append(alive, logits, sampling)
            yield
            left = [row for row, one in enumerate(alive) if not one.done]
            if not left:
                return
            if 2 * len(left) <= len(alive):  # the finished ones would cost more than moving the rest
                rows = torch.tensor(left, device=device)
                cache.select_rows(rows)
                alive = [alive[row] for row in left]
                tokens, positions = tokens[rows], positions[rows]
            logits = self._forward(cache, tokens[:, None], positions[:, None], None)
            positions = positions + 1

    def _prefill(
        self, batch: list[_Sequence], device: torch.device, prefix: PrefixCache | None
    ) -> tuple[StaticKVCache, Float[Tensor, "batch vocab"], Int[Tensor, " batch"]]:
        """The cache of all prompts, the logits at their ends, their lengths. Equal prompts are computed once."""
        prompts = list(dict.fromkeys(tuple(one.prompt) for one in batch))
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        longest = int(lengths.max())
        ids = torch.full((len(prompts), longest), self.pad)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        capacity = longest + max(one.room for one in batch)
        cache, known = (None, 0) if prefix is None else prefix.take(batch[0].prompt, capacity)
        cache = StaticKVCache(lengths, capacity, device) if cache is None else cache
        positions = torch.arange(known, longest).expand(len(prompts), -1)
        ends = (lengths - 1 - known).to(device)
        logits = self._forward(cache, ids[:, known:].to(device), positions.to(device), ends)
        if len(prompts) < len(batch):
            row_of = {prompt: row for row, prompt in enumerate(prompts)}
            rows = torch.tensor([row_of[tuple(one.prompt)] for one in batch])
            cache.select_rows(rows.to(device))
            logits, lengths = logits[rows.to(device)], lengths[rows]
        return cache, logits, lengths

    @torch.no_grad()
    def _forward(
        self,
        cache: StaticKVCache,
        ids: Int[Tensor, "batch time"],
        positions: Int[Tensor, "batch time"],
        ends: Int[Tensor, " batch"] | None,
    ) -> Float[Tensor, "batch vocab"]:
        """Logits at each row's end, the last position by default."""
        cache.reserve(ids.shape[1])
        hidden = self.model.hidden(ids, cache=cache, positions=positions)
        last = hidden[:, -1] if ends is None else hidden[torch.arange(len(ends), device=ends.device), ends]
        return self.model.logits(last[:, None])[:, 0]

    def _append(
        self, alive: list[_Sequence], logits: Float[Tensor, "batch vocab"], sampling: Sampling
    ) -> Int[Tensor, " batch"]:
        """Draw a token for every row; rows that are done draw one too, which is thrown away."""
        numbers = [0.0 if one.done else one.numbers[len(one.ids)] for one in alive]
        log_probs = log_probabilities(logits, sampling.temperature)
        tokens = next_tokens(
            log_probs, torch.tensor(numbers, dtype=torch.float64, device=logits.device), sampling
        )
        chosen = log_probs.gather(1, tokens[:, None])[:, 0].tolist()
        for one, token, log_prob in zip(alive, tokens.tolist(), chosen, strict=True):
            if not one.done:
                one.ids.append(token)
                one.log_probs.append(log_prob)
                one.stopped = token in self.stop
        return tokens
