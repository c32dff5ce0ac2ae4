"""Checks of generation: cached against full logits, draws against a plain loop, rollouts against the trainer.

in:  a bench
out: differences
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from groundup.align import rollouts
from groundup.doctor import formulas, reference, sampling_reference
from groundup.doctor.check import Check, CheckContext, Difference, compare, draw, equal
from groundup.doctor.checks_model import plain_logits, roundings
from groundup.doctor.toy_models import CONFIGS, FAST, SAMPLED, VOCAB, decoder, dtypes, loud, texts, weights_of
from groundup.infer import engine, kv_cache, sampling
from groundup.model import losses, value_head
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder

LENGTHS = (6, 11, 3, 11, 8)
PAD, STOP = VOCAB - 1, VOCAB - 2
STOPS = {STOP, PAD}
"""Padding ends an answer too, so that its embedding, which is poisoned, is never read as text."""
STEPS = (1, 2, 1, 1)
"""Tokens given in each forward pass after the prompt."""
FRESH = 10
WAYS = (
    sampling.Sampling(1.0),
    sampling.Sampling(0.6),
    sampling.Sampling(1.5, top_p=0.8),
    sampling.Sampling(0.7, top_k=5),
    sampling.Sampling(1.3, top_k=9, top_p=0.6),
    sampling.Sampling(0.0),
)


def _poisoned(config: DecoderConfig, bench: CheckContext, dtype: torch.dtype = torch.float32) -> Decoder:
    """A decoder that a look at padding would throw off; where the embedding is the head, it can't be poisoned."""
    model = decoder(config, bench, dtype)
    if not config.tie_embeddings:
        with torch.no_grad():
            model.model.embed_tokens.weight[PAD] = 2.0**20
    return model


def _prompts() -> list[list[int]]:
    ids = (texts(len(LENGTHS), max(LENGTHS), seed=5) % STOP).tolist()
    return [row[:length] for row, length in zip(ids, LENGTHS, strict=True)]


def _check_cache(bench: CheckContext) -> Iterator[Difference]:
    """Prompts of several lengths, then a few tokens at a time, with sequences leaving and changing places."""
    ids = texts(len(LENGTHS), max(LENGTHS) + sum(STEPS), seed=5) % STOP
    for name, config in CONFIGS.items():
        want = plain_logits(decoder(config, bench), ids)
        for dtype in dtypes(config, bench):
            model = _poisoned(config, bench, dtype)
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
        fresh = ids[rows[:, None], positions].to(device)
        got = model(fresh, cache=kept, positions=positions.to(device))
        allowed = roundings(model.config, dtype)
        yield compare(f"{what} step {number + 1}", got, want[rows[:, None], positions], allowed, dtype)
        ends = ends + count


def _check_sampling(bench: CheckContext) -> Iterator[Difference]:
    logits = draw(20, 40, scale=2.0)
    logits[0] = logits[17] = logits[39] = -1e4  # never drawn, at either end and within
    numbers = sampling_reference.numbers(300)
    for how in WAYS:
        rows = logits.float().expand(len(numbers), -1).to(bench.device)
        log_probs = sampling.log_probabilities(rows, how.temperature)
        want = formulas.log_softmax(logits, how.temperature or 1.0)
        seen = want > -math.inf
        yield compare(f"log_probabilities, {how}", log_probs[0].cpu()[seen], want[seen], 16)
        ours = sampling.next_tokens(log_probs, numbers.to(bench.device), how).tolist()
        plain = [sampling_reference.drawn(logits, number, how) for number in numbers.tolist()]
        yield Difference(
            f"next_tokens, {how}: share of other draws", sampling_reference.agreed(ours, plain), 0.0
        )
    ends = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64, device=bench.device)
    log_probs = sampling.log_probabilities(logits.float().expand(2, -1).to(bench.device), 1.0)
    extremes = sampling.next_tokens(log_probs, ends, sampling.Sampling()).tolist()
    yield equal("next_tokens at 0 and just below 1", extremes, [1, 38])


def _check_uniforms(bench: CheckContext) -> Iterator[Difference]:
    found = {
        (seed, key): sampling.uniforms(seed, key, 4000) for seed, key in ((0, 0), (0, 1), (1, 0), (0, "a"))
    }
    flat = torch.stack(list(found.values()))
    yield equal("uniforms below 0 or not below 1", int(((flat < 0) | (flat >= 1)).sum()), 0)
    yield equal("uniforms, asked again", sampling.uniforms(0, 1, 4000), found[0, 1])
    # Six standard deviations of what independent numbers give.
    spread = 6 / math.sqrt(4000)
    yield Difference(
        "uniforms: mean", float((flat.mean(dim=1) - 0.5).abs().max()), spread * math.sqrt(1 / 12)
    )
    related = torch.corrcoef(flat) - torch.eye(len(flat), dtype=flat.dtype)
    yield Difference("uniforms: other seeds and keys", float(related.abs().max()), spread)


def _check_engine(bench: CheckContext) -> Iterator[Difference]:
    """Every token is the one that the reference draws with the same number, whatever the batch it's in."""
    prompts = _prompts()
    keys = [f"prompt {number}" for number in range(len(prompts))]
    for name, config in SAMPLED.items():
        generator = engine.Engine(_poisoned(config, bench), STOPS, PAD, config.max_seq_len, max_batch=3)
        plain = decoder(config, bench)
        for how in WAYS:
            arguments = (FRESH, how.temperature, how.top_k, how.top_p)
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
    """What an engine made, against the float64 logits of the same ids and the same numbers."""
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
        numbers = sampling.uniforms(7, f"prompt {number}", FRESH).tolist()
        pairs = zip(logits, numbers, strict=False)
        want += [sampling_reference.drawn(row, number, how) for row, number in pairs]
        ours += one.ids
        stopped = [token in STOPS for token in one.ids]
        ended = one.finish == "stop" if any(stopped) else one.finish == "length" and len(one.ids) == FRESH
        yield equal(f"{what}: its end", ended and not any(stopped[:-1]), True)
    yield Difference(f"{what}: share of other draws", sampling_reference.agreed(ours, want), 0.0)


def _check_trainer(bench: CheckContext) -> Iterator[Difference]:
    """Log-probabilities as the engine gave them, and as the trainer's forward pass gives them for the same ids."""
    prompts = _prompts()
    for name, config in SAMPLED.items():
        size = float(plain_logits(decoder(config, bench), texts(2, 32)).abs().max())
        for dtype in dtypes(config, bench):
            model = _poisoned(config, bench, dtype)
            generator = engine.Engine(model, STOPS, PAD, config.max_seq_len)
            for how in WAYS[:-1]:
                done = generator.generate(prompts, FRESH, how.temperature, how.top_k, how.top_p, seed=3)
                rows = [prompt + one.ids for prompt, one in zip(prompts, done, strict=True)]
                trained = _trained(model, rows, how.temperature)
                for row, (prompt, one) in enumerate(zip(prompts, done, strict=True)):
                    want = trained[row, len(prompt) - 1 : len(rows[row]) - 1]
                    allowed, scale = 2 * roundings(config, dtype), size / how.temperature
                    found = torch.tensor(one.log_probs)
                    yield compare(f"{name}, {how}", found, want, allowed, dtype, scale)


def _trained(model: Decoder, rows: Sequence[list[int]], temperature: float) -> Tensor:
    """The trainer's log-probability of every token but the first; rows are filled up with what comes too late."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=model.head_weight.device)
    hidden, cap = model.hidden(ids[:, :-1]), model.config.logit_softcap
    return losses.token_log_probs(hidden, model.head_weight, ids[:, 1:], temperature, cap)


def _check_rollouts(bench: CheckContext) -> Iterator[Difference]:
    """Sampled answers packed into rows as PPO trains on them: log-probabilities, values and scores of each token."""
    prompts, shape = _prompts(), rollouts.Shape(2, 40, PAD)
    critic = value_head.ValueModel(FAST)
    loud(critic, seed=1)
    plain = {name.removeprefix("decoder."): weight for name, weight in weights_of(critic).items()}
    critic.to(bench.device)
    size = float(plain_logits(decoder(FAST, bench), texts(2, 32)).abs().max())
    for dtype in bench.dtypes:
        model, critic.compute_dtype = _poisoned(FAST, bench, dtype), dtype
        generator = engine.Engine(model, STOPS, PAD, FAST.max_seq_len)
        for temperature in (0.6, 1.0, 1.5):
            made = rollouts.sample(generator, prompts, FRESH, temperature, seed=3, end=STOP)
            trained = rollouts.answer_log_probs(model, made, shape, temperature)
            allowed, at = 2 * roundings(FAST, dtype), f"temperature {temperature}"
            yield compare(
                f"rollouts and trainer, {at}", trained, made.log_probs, allowed, dtype, size / temperature
            )
            want = _plain_values(plain, made)
            yield compare(
                f"answer_values, {at}", rollouts.answer_values(critic, made, shape), want[0], allowed, dtype
            )
            last = rollouts.last_values(critic, made.sequences(), shape)
            yield compare(f"last_values, {at}", last, want[1], allowed, dtype)
            ends = [answer[-1] == STOP for answer in made.answers]
            yield equal(f"ended, {at}", made.ended.tolist(), ends)


def _plain_values(plain: dict[str, Tensor], made: rollouts.Rollouts) -> tuple[Tensor, Tensor]:
    """The reference's value before every token of every answer, and at each sequence's last token."""
    values, last = torch.zeros(made.ids.shape, dtype=torch.float64), []
    for row, (prompt, answer) in enumerate(zip(made.prompts, made.answers, strict=True)):
        ids = torch.tensor([prompt + answer])
        hidden = reference.hidden(plain, FAST, ids, [[0] * ids.shape[1]])
        found = (hidden @ plain["score.weight"][0])[0].detach()
        values[row, : len(answer)] = found[len(prompt) - 1 : -1]
        last.append(found[-1])
    return values, torch.stack(last)


CHECKS = [
    Check(
        "generation: cache", "a model says something else when it remembers than when it reads", _check_cache
    ),
    Check("generation: sampling", "tokens are drawn with wrong probabilities", _check_sampling),
    Check(
        "generation: random numbers", "draws aren't random, or aren't the same when repeated", _check_uniforms
    ),
    Check("generation: engine", "answers depend on their batch, or aren't the model's", _check_engine),
    Check("generation: trainer", "rollouts' log-probabilities aren't the trainer's", _check_trainer),
    Check("generation: rollouts", "PPO learns from wrong log-probabilities or values", _check_rollouts),
]
