"""Checks of inference: KV cache against full logits, sampling against a plain loop, rollouts against the trainer.

in:  a `CheckContext`
out: differences
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from groundup.align import rollouts
from groundup.doctor import formulas, reference, sampling_reference
from groundup.doctor.check import Check, CheckContext, Difference, compare, equal, normal
from groundup.doctor.checks_model import plain_logits, roundings
from groundup.doctor.toy_models import (
    CONFIGS,
    FAST,
    GENERATION_CONFIGS,
    VOCAB,
    decoder,
    dtypes,
    random_ids,
    set_distinct_weights,
    weights_of,
)
from groundup.infer import engine, kv_cache, sampling
from groundup.model import losses, value_head
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder

LENGTHS = (6, 11, 3, 11, 8)
PAD, STOP = VOCAB - 1, VOCAB - 2
STOPS = {STOP, PAD}
"""Padding is a stop token too, so that its poisoned embedding is never an input."""
STEPS = (1, 2, 1, 1)
"""Number of tokens of each forward pass after the prompt."""
MAX_NEW_TOKENS = 10
SAMPLINGS = (
    sampling.Sampling(1.0),
    sampling.Sampling(0.6),
    sampling.Sampling(1.5, top_p=0.8),
    sampling.Sampling(0.7, top_k=5),
    sampling.Sampling(1.3, top_k=9, top_p=0.6),
    sampling.Sampling(0.0),
)


def _poisoned(config: DecoderConfig, context: CheckContext, dtype: torch.dtype = torch.float32) -> Decoder:
    """A decoder with a huge embedding of padding, which any access exposes; not possible with tied embeddings."""
    model = decoder(config, context, dtype)
    if not config.tie_embeddings:
        with torch.no_grad():
            model.model.embed_tokens.weight[PAD] = 2.0**20
    return model


def _prompts() -> list[list[int]]:
    ids = (random_ids(len(LENGTHS), max(LENGTHS), seed=5) % STOP).tolist()
    return [row[:length] for row, length in zip(ids, LENGTHS, strict=True)]


def _check_cache(context: CheckContext) -> Iterator[Difference]:
    """Prompts of several lengths, then a few tokens per step, with sequences removed and reordered."""
    ids = random_ids(len(LENGTHS), max(LENGTHS) + sum(STEPS), seed=5) % STOP
    for name, config in CONFIGS.items():
        want = plain_logits(decoder(config, context), ids)
        for dtype in dtypes(config, context):
            model = _poisoned(config, context, dtype)
            yield from _cached(model, ids, want, f"{name}: cached", dtype)


@torch.no_grad()
def _cached(model: Decoder, ids: Tensor, want: Tensor, what: str, dtype: torch.dtype) -> Iterator[Difference]:
    device, lengths, longest = model.head_weight.device, torch.tensor(LENGTHS), max(LENGTHS)
    kept = kv_cache.StaticKVCache(lengths, longest + sum(STEPS), device)
    kept.reserve(longest)
    padded = ids[:, :longest].masked_fill(torch.arange(longest)[None] >= lengths[:, None], PAD)
    positions = torch.arange(longest).expand(len(LENGTHS), -1)
    got = model(padded.to(device), cache=kept, positions=positions.to(device)).cpu()
    for row, length in enumerate(LENGTHS):
        yield compare(
            f"{what} prompt", got[row, :length], want[row, :length], roundings(model.config, dtype), dtype
        )
    rows, ends = torch.arange(len(LENGTHS)), lengths
    for number, count in enumerate(STEPS):
        if number == 2:
            stay = torch.tensor([3, 0, 2])
            kept.select_rows(stay.to(device))
            rows, ends = rows[stay], ends[stay]
        positions = ends[:, None] + torch.arange(count)[None]
        kept.reserve(count)
        new_ids = ids[rows[:, None], positions].to(device)
        got = model(new_ids, cache=kept, positions=positions.to(device))
        allowed = roundings(model.config, dtype)
        yield compare(f"{what} step {number + 1}", got, want[rows[:, None], positions], allowed, dtype)
        ends = ends + count


def _check_sampling(context: CheckContext) -> Iterator[Difference]:
    logits = normal(20, 40, scale=2.0)
    logits[0] = logits[17] = logits[39] = -1e4  # probability 0, at both ends and inside
    numbers = sampling_reference.uniform_grid(300)
    for how in SAMPLINGS:
        rows = logits.float().expand(len(numbers), -1).to(context.device)
        log_probs = sampling.log_probabilities(rows, how.temperature)
        want = formulas.log_softmax(logits, how.temperature or 1.0)
        possible = want > -math.inf
        yield compare(f"log_probabilities, {how}", log_probs[0].cpu()[possible], want[possible], 16)
        ours = sampling.next_tokens(log_probs, numbers.to(context.device), how).tolist()
        plain = [sampling_reference.sampled_token(logits, number, how) for number in numbers.tolist()]
        yield Difference(
            f"next_tokens, {how}: fraction of differing draws",
            sampling_reference.mismatch_share(ours, plain),
            0.0,
        )
    ends = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64, device=context.device)
    log_probs = sampling.log_probabilities(logits.float().expand(2, -1).to(context.device), 1.0)
    extremes = sampling.next_tokens(log_probs, ends, sampling.Sampling()).tolist()
    yield equal("next_tokens at 0 and just below 1", extremes, [1, 38])


def _check_uniforms(context: CheckContext) -> Iterator[Difference]:
    draws = {
        (seed, key): sampling.uniforms(seed, key, 4000) for seed, key in ((0, 0), (0, 1), (1, 0), (0, "a"))
    }
    flat = torch.stack(list(draws.values()))
    yield equal("uniforms below 0 or not below 1", int(((flat < 0) | (flat >= 1)).sum()), 0)
    yield equal("uniforms, deterministic", sampling.uniforms(0, 1, 4000), draws[0, 1])
    # Six standard deviations of independent numbers.
    spread = 6 / math.sqrt(4000)
    yield Difference(
        "uniforms: mean", float((flat.mean(dim=1) - 0.5).abs().max()), spread * math.sqrt(1 / 12)
    )
    related = torch.corrcoef(flat) - torch.eye(len(flat), dtype=flat.dtype)
    yield Difference("uniforms: correlation between seeds and keys", float(related.abs().max()), spread)


def _check_engine(context: CheckContext) -> Iterator[Difference]:
    """Every token equals the reference's for the same uniform number, in any batch."""
    prompts = _prompts()
    keys = [f"prompt {number}" for number in range(len(prompts))]
    for name, config in GENERATION_CONFIGS.items():
        generator = engine.Engine(_poisoned(config, context), STOPS, PAD, config.max_seq_len, max_batch=3)
        plain = decoder(config, context)
        for how in SAMPLINGS:
            arguments = (MAX_NEW_TOKENS, how.temperature, how.top_k, how.top_p)
            done = generator.generate(prompts, *arguments, seed=7, keys=keys)
            what = f"{name}, {how}"
            yield from _draws(plain, prompts, done, how, what)
            alone = generator.generate([prompts[3]], *arguments, seed=7, keys=[keys[3]])[0]
            yield equal(f"{what}: alone or in a batch", alone.ids, done[3].ids)
            streamed = list(generator.stream(prompts[0], *arguments, seed=7, key=keys[0]))
            yield equal(f"{what}: streamed", streamed, done[0].content)


def _draws(
    plain: Decoder,
    prompts: Sequence[list[int]],
    done: Sequence[engine.Completion],
    how: sampling.Sampling,
    what: str,
) -> Iterator[Difference]:
    """Completions against the float64 logits of the same ids and the same uniform numbers."""
    ours, want = list[int](), list[int | None]()
    for number, (prompt, one) in enumerate(zip(prompts, done, strict=True)):
        logits = plain_logits(plain, torch.tensor([prompt + one.ids]))[0, len(prompt) - 1 : -1]
        temperature = how.temperature or 1.0
        log_probs = formulas.log_softmax(logits, temperature)
        chosen = log_probs.gather(1, torch.tensor(one.ids)[:, None])[:, 0]
        yield compare(
            f"{what}: log-probabilities",
            torch.tensor(one.log_probs),
            chosen,
            2 * roundings(plain.config),
            scale=float(logits.abs().max()) / temperature,
        )
        numbers = sampling.uniforms(7, f"prompt {number}", MAX_NEW_TOKENS).tolist()
        pairs = zip(logits, numbers, strict=False)
        want += [sampling_reference.sampled_token(row, number, how) for row, number in pairs]
        ours += one.ids
        stopped = [token in STOPS for token in one.ids]
        ended = (
            one.finish == "stop"
            if any(stopped)
            else one.finish == "length" and len(one.ids) == MAX_NEW_TOKENS
        )
        yield equal(f"{what}: stop", ended and not any(stopped[:-1]), True)
    yield Difference(
        f"{what}: fraction of differing draws", sampling_reference.mismatch_share(ours, want), 0.0
    )


def _check_trainer(context: CheckContext) -> Iterator[Difference]:
    """The engine's log-probabilities against the trainer's forward pass over the same ids."""
    prompts = _prompts()
    for name, config in GENERATION_CONFIGS.items():
        size = float(plain_logits(decoder(config, context), random_ids(2, 32)).abs().max())
        for dtype in dtypes(config, context):
            model = _poisoned(config, context, dtype)
            generator = engine.Engine(model, STOPS, PAD, config.max_seq_len)
            for how in SAMPLINGS[:-1]:
                done = generator.generate(
                    prompts, MAX_NEW_TOKENS, how.temperature, how.top_k, how.top_p, seed=3
                )
                rows = [prompt + one.ids for prompt, one in zip(prompts, done, strict=True)]
                trained = _trained(model, rows, how.temperature)
                for row, (prompt, one) in enumerate(zip(prompts, done, strict=True)):
                    want = trained[row, len(prompt) - 1 : len(rows[row]) - 1]
                    allowed, scale = 2 * roundings(config, dtype), size / how.temperature
                    sampled = torch.tensor(one.log_probs)
                    yield compare(f"{name}, {how}", sampled, want, allowed, dtype, scale)


def _trained(model: Decoder, rows: Sequence[list[int]], temperature: float) -> Tensor:
    """The trainer's log-probability of every token but the first; rows are right-padded."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=model.head_weight.device)
    hidden, cap = model.hidden(ids[:, :-1]), model.config.logit_softcap
    return losses.token_log_probs(hidden, model.head_weight, ids[:, 1:], temperature, cap)


def _check_rollouts(context: CheckContext) -> Iterator[Difference]:
    """Rollouts packed as in PPO: log-probabilities, values and scores."""
    prompts, shape = _prompts(), rollouts.BatchShape(2, 40, PAD)
    critic = value_head.ValueModel(FAST)
    set_distinct_weights(critic, seed=1)
    plain = {name.removeprefix("decoder."): weight for name, weight in weights_of(critic).items()}
    critic.to(context.device)
    size = float(plain_logits(decoder(FAST, context), random_ids(2, 32)).abs().max())
    for dtype in context.dtypes:
        model, critic.compute_dtype = _poisoned(FAST, context, dtype), dtype
        generator = engine.Engine(model, STOPS, PAD, FAST.max_seq_len)
        for temperature in (0.6, 1.0, 1.5):
            batch = rollouts.sample(generator, prompts, MAX_NEW_TOKENS, temperature, seed=3, end_of_turn=STOP)
            trained = rollouts.rollout_log_probs(model, batch, shape, temperature)
            allowed, at = 2 * roundings(FAST, dtype), f"temperature {temperature}"
            yield compare(
                f"rollouts and trainer, {at}", trained, batch.log_probs, allowed, dtype, size / temperature
            )
            want = _plain_values(plain, batch)
            yield compare(
                f"rollout_values, {at}",
                rollouts.rollout_values(critic, batch, shape),
                want[0],
                allowed,
                dtype,
            )
            last = rollouts.last_values(critic, batch.sequences(), shape)
            yield compare(f"last_values, {at}", last, want[1], allowed, dtype)
            ends = [answer[-1] == STOP for answer in batch.responses]
            yield equal(f"ended, {at}", batch.ended.tolist(), ends)


def _plain_values(plain: dict[str, Tensor], batch: rollouts.Rollouts) -> tuple[Tensor, Tensor]:
    """The reference's value before every response token, and at each sequence's last token."""
    values, last = torch.zeros(batch.ids.shape, dtype=torch.float64), []
    for row, (prompt, answer) in enumerate(zip(batch.prompts, batch.responses, strict=True)):
        ids = torch.tensor([prompt + answer])
        hidden = reference.hidden(plain, FAST, ids, [[0] * ids.shape[1]])
        row_values = (hidden @ plain["score.weight"][0])[0].detach()
        values[row, : len(answer)] = row_values[len(prompt) - 1 : -1]
        last.append(row_values[-1])
    return values, torch.stack(last)


CHECKS = [
    Check("generation: KV cache", "logits with a KV cache differ from those without", _check_cache),
    Check("generation: sampling", "tokens are sampled with wrong probabilities", _check_sampling),
    Check("generation: random numbers", "samples aren't random, or aren't reproducible", _check_uniforms),
    Check(
        "generation: engine",
        "responses depend on their batch, or don't follow the model's logits",
        _check_engine,
    ),
    Check("generation: trainer", "log-probabilities of rollouts differ from the trainer's", _check_trainer),
    Check("generation: rollouts", "PPO trains on wrong log-probabilities or values", _check_rollouts),
]
