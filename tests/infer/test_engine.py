"""The engine against the naive loop: same tokens, same log-probabilities, whoever shares the batch."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from groundup.infer.engine import Engine
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.model.losses import token_log_probs

PAD = 0
CONFIG = DecoderConfig(
    vocab_size=64, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=48, max_seq_len=48
)
PROMPTS = [[1, 5, 9], [1], [1, 7, 7, 7, 30, 31, 32, 33, 34, 2], [1, 44, 45, 46, 47], [1, 63]]


def make(config: DecoderConfig = CONFIG) -> Decoder:
    """Random weights, loud enough that tokens differ from step to step."""
    model = Decoder(config)
    model.init_weights(3)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(20)
        model.head_weight.mul_(1 if config.tie_embeddings else 20)
    return model


def engine(model: Decoder, stop: Sequence[int] = (), max_batch: int = 64) -> Engine:
    return Engine(model, set(stop), PAD, CONFIG.max_seq_len, max_batch)


def naive_greedy(model: Decoder, prompt: list[int], count: int) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        replace(CONFIG, qk_norm="none", architecture="llama", n_kv_heads=4, tie_embeddings=True),
        replace(CONFIG, n_kv_heads=1),
    ],
)
def test_cached_greedy_generation_equals_the_full_forward_pass_token_by_token(config: DecoderConfig) -> None:
    model = make(config)
    found = engine(model).generate(PROMPTS, 24, temperature=0)
    for prompt, completion in zip(PROMPTS, found, strict=True):
        assert completion.ids == naive_greedy(model, prompt, 24)
        assert completion.finish == "length"
    assert len({token for completion in found for token in completion.ids}) > 4


def test_the_result_of_a_prompt_does_not_depend_on_its_batch() -> None:
    model = make()
    keys = [f"prompt {i}" for i in range(len(PROMPTS))]
    together = engine(model, stop=[3, 4]).generate(PROMPTS, 24, temperature=0.9, seed=5, keys=keys)
    for max_batch in (1, 2):
        apart = engine(model, [3, 4], max_batch).generate(PROMPTS, 24, temperature=0.9, seed=5, keys=keys)
        assert [one.ids for one in apart] == [one.ids for one in together]
    for i, prompt in enumerate(PROMPTS):
        (alone,) = engine(model, [3, 4]).generate([prompt], 24, temperature=0.9, seed=5, keys=[keys[i]])
        assert alone.ids == together[i].ids
        assert alone.log_probs == pytest.approx(together[i].log_probs, abs=1e-5)


def test_samples_of_one_prompt_share_its_prefill_and_equal_those_drawn_alone() -> None:
    model, rows = make(), []
    prompts = [prompt for prompt in PROMPTS[:3] for _ in range(4)]
    one = engine(model)
    forward = one._forward
    one._forward = lambda cache, ids, *rest: (rows.append(len(ids)), forward(cache, ids, *rest))[1]  # type: ignore[method-assign]
    together = one.generate(prompts, 12, seed=5)
    assert rows[0] == 3
    assert rows[1] == 12
    assert len({tuple(completion.ids) for completion in together[:4]}) == 4
    for index, prompt in enumerate(prompts):
        alone = engine(model).generate([prompt], 12, seed=5, keys=[index])[0]
        assert together[index].ids == alone.ids
        assert together[index].log_probs == pytest.approx(alone.log_probs, abs=1e-4)


def test_another_seed_or_key_draws_something_else() -> None:
    model = make()

    def answer(seed: int, key: int) -> list[int]:
        return engine(model).generate([[1]], 24, seed=seed, keys=[key])[0].ids

    assert answer(0, 0) == answer(0, 0)
    assert answer(0, 0) != answer(1, 0)
    assert answer(0, 0) != answer(0, 1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_rollout_log_probabilities_equal_the_trainers(temperature: float) -> None:
    model = make()
    found = engine(model, stop=[3, 4, 5, 6]).generate(PROMPTS, 24, temperature, seed=1)
    assert {one.finish for one in found} == {"stop", "length"}
    for prompt, completion in zip(PROMPTS, found, strict=True):
        ids = torch.tensor([prompt + completion.ids])
        trained = token_log_probs(model.hidden(ids[:, :-1]), model.head_weight, ids[:, 1:], temperature)
        answer = trained[0, len(prompt) - 1 :].tolist()
        assert completion.log_probs == pytest.approx(answer, abs=1e-4)


def test_answers_end_at_a_stop_id_and_the_batch_goes_on() -> None:
    model = make()
    free = engine(model).generate(PROMPTS, 24, temperature=0)
    stop = free[0].ids[2]
    stopped = engine(model, [stop]).generate(PROMPTS, 24, temperature=0)
    assert stopped[0].finish == "stop"
    for one, whole in zip(stopped, free, strict=True):
        end = whole.ids.index(stop) + 1 if stop in whole.ids else 24
        assert one.ids == whole.ids[:end]
        assert one.content == (one.ids[:-1] if stop in whole.ids else one.ids)


def test_streaming_gives_the_same_tokens_without_the_stop_id() -> None:
    model = make()
    (whole,) = engine(model, [3, 4, 5, 6, 7, 8]).generate([[1, 2]], 40, seed=2)
    streamed = list(engine(model, [3, 4, 5, 6, 7, 8]).stream([1, 2], 40, seed=2))
    assert whole.finish == "stop"
    assert streamed == whole.content


def test_prompt_and_answer_never_exceed_the_context() -> None:
    model = make()
    long = [1] * (CONFIG.max_seq_len - 3)
    assert [len(one.ids) for one in engine(model).generate([long, [1]], 24)] == [3, 24]
    with pytest.raises(ValueError, match="prompt 0 has 48 tokens"):
        engine(model).generate([[1] * CONFIG.max_seq_len], 24)
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        engine(model).generate([[1], []], 24)


def test_padding_is_seen_by_nothing() -> None:
    model = make()
    poisoned = make()
    with torch.no_grad():
        poisoned.model.embed_tokens.weight[PAD] = 1e6
    assert [one.ids for one in engine(model, [PAD]).generate(PROMPTS, 24, temperature=0)] == [
        one.ids for one in engine(poisoned, [PAD]).generate(PROMPTS, 24, temperature=0)
    ]
