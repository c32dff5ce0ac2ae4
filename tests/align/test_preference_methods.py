"""Methods on preferences: what they score, what they leave out, and what they learn."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from align_helpers import SITE, TIME, method_context
from safetensors.torch import load_file

from groundup.align.align import train_with
from groundup.align.methods import Method, MethodContext
from groundup.align.methods.dpo import Dpo
from groundup.align.methods.kto import Kto
from groundup.align.methods.orpo import Orpo
from groundup.align.methods.simpo import Simpo
from groundup.align.packing import pack_all
from groundup.align.preference_session import REFERENCE_FILE, PreferenceSession
from groundup.align.response_pairs import faulty_pairs, response_pairs
from groundup.align.sequences import response_sequence, sequence_batch, sequence_log_probs
from groundup.core.errors import DataError
from groundup.core.records import LabelledResponse, Message, Ranking, Record
from groundup.evaluate.alignment_data import AlignmentData
from groundup.evaluate.tasks import Example
from groundup.model.checkpoint import load_decoder
from groundup.tokens.chat import render
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.optimizers.adamw import AdamW

SETTINGS: dict[str, Any] = {"optimizer": AdamW(lr=1e-3), "precision": "fp32", "batch_rows": 4, "held_out": 12}
METHODS: dict[str, Method] = {
    "dpo": Dpo(made=20, epochs=2, **SETTINGS),
    "ipo": Dpo(made=20, epochs=2, loss="ipo", **SETTINGS),
    "simpo": Simpo(made=20, epochs=2, **SETTINGS),
    "cpo": Simpo(made=20, epochs=2, loss="cpo", beta=0.1, nll_coef=1.0, **SETTINGS),
    "orpo": Orpo(made=20, epochs=2, odds_coef=5.0, **SETTINGS),
    "kto": Kto(made=20, epochs=2, **SETTINGS),
    "lora": Dpo(made=20, epochs=2, lora_rank=4, **SETTINGS),
}


def ranking(example: Example, worse: str, split: Any = "train", better: str | None = None) -> Ranking:
    answers = (example.answer if better is None else better, worse)
    responses = tuple((Message("assistant", answer),) for answer in answers)
    return Ranking(id=example.id, group=example.group, split=split, prompt=(Message("user", example.question),),
                   responses=responses, ranks=(1, 2))  # fmt: skip


def rankings(examples: Sequence[Example]) -> list[Record]:
    """A right answer above the answer of the next example; every seventh is held out."""
    following = [*examples[1:], examples[0]]
    return [
        ranking(example, other.answer, "held_out" if number % 7 == 0 else "train")
        for number, (example, other) in enumerate(zip(examples, following, strict=True))
    ]


def context_with(
    records: Sequence[Record], folder: Path, examples: list[Example], tokenizer: Tokenizer, start: Path
) -> MethodContext:
    context = method_context(folder, examples, tokenizer, SITE, start=start)
    return replace(context, data=AlignmentData(records))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_to_prefer_on_prompts_it_has_not_seen(
    name: str, examples: list[Example], tokenizer: Tokenizer, start: Path, tmp_path: Path
) -> None:
    method = METHODS[name]
    context = method_context(tmp_path, examples, tokenizer, SITE, start=start)
    metrics = train_with(method, context)
    context.stage.close_log()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert steps[-1]["loss"] < steps[0]["loss"]
    wanted = (
        {"good_log_ratio", "bad_log_ratio"} if name == "kto" else {"chosen_log_ratio", "rejected_log_ratio"}
    )
    assert wanted <= steps[0].keys()
    assert wanted <= metrics.keys()
    better, worse = (metrics[key] for key in sorted(wanted, key=lambda key: key.startswith(("rej", "bad"))))
    assert better > worse
    assert load_file(tmp_path / "model.safetensors").keys() == load_file(start / "model.safetensors").keys()


def test_the_first_step_begins_at_the_reference_policy(
    examples: list[Example], tokenizer: Tokenizer, start: Path, tmp_path: Path
) -> None:
    """Log-ratios of 0 and DPO's loss of log 2: neither dropout nor another rendering is between the two."""
    method = Dpo(made=20, nll_coef=0.0, max_tokens=4 * TIME, **SETTINGS)
    context = method_context(tmp_path, examples, tokenizer, SITE, start=start)
    train_with(method, context)
    context.stage.close_log()
    line = next(
        line
        for line in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
        if "loss" in line
    )
    assert line["loss"] == pytest.approx(0.6931472, abs=1e-5)
    assert line["chosen_log_ratio"] == pytest.approx(0, abs=1e-4)
    assert line["rejected_log_ratio"] == pytest.approx(0, abs=1e-4)


def test_sums_of_packed_sequences_are_those_of_each_alone(tokenizer: Tokenizer, start: Path) -> None:
    """Against a plain forward pass of one sequence: neither neighbours nor the shift of the mask change a sum."""
    policy = load_decoder(start, torch.device("cpu"), torch.float32)
    prompt = (Message("user", "What does open_ball do?"),)
    groups = [
        (response_sequence(prompt, (Message("assistant", text),), tokenizer),)
        for text in ("It opens.", "open_ball will open the ball.", "No")
    ]
    (packed,) = pack_all([[one.ids for one in group] for group in groups], 2, TIME, tokenizer.pad)
    batch = sequence_batch(packed, groups)
    sums = sequence_log_probs(policy, batch)
    for (one,), total, tokens in zip(groups, sums.tolist(), batch.tokens.tolist(), strict=True):
        logits = policy(torch.tensor([one.ids]))[0].log_softmax(dim=-1)
        begin = one.scored.index(True)
        expected = sum(float(logits[at - 1, one.ids[at]].detach()) for at in range(begin, len(one.ids)))
        assert total == pytest.approx(expected, abs=1e-4)
        assert tokens == len(one.ids) - begin


def test_the_denominator_counts_the_scored_tokens_alone(tokenizer: Tokenizer) -> None:
    """The mask shift in IPO's denominator: as many tokens as log-probabilities are summed, also without a prompt."""
    for prompt in ((Message("user", "Why?"),), ()):
        one = response_sequence(prompt, (Message("assistant", "So it is."),), tokenizer)
        (packed,) = pack_all([[one.ids]], 1, TIME, tokenizer.pad)
        batch = sequence_batch(packed, [(one,)])
        assert one.tokens == len(batch.positions) == int(batch.tokens)
        content = len(tokenizer.encode("So it is."))
        assert one.tokens == content + 1


def test_the_beginning_of_text_occurs_once_and_the_end_of_turn_is_scored(tokenizer: Tokenizer) -> None:
    """BOS twice; and pad = eos: the token that ends an answer is scored, whatever pads the rows."""
    one = response_sequence((Message("user", "Why?"),), (Message("assistant", "So."),), tokenizer)
    assert one.ids.count(tokenizer.bos) == 1
    assert one.ids[-1] == tokenizer.end_of_turn
    assert one.scored[-1]
    (packed,) = pack_all([[one.ids]], 1, TIME, tokenizer.end_of_turn)
    batch = sequence_batch(packed, [(one,)])
    assert int(batch.targets[-1]) == tokenizer.end_of_turn
    assert len(batch.targets) == one.tokens


def test_prompt_and_answer_are_tokenized_as_one_conversation(tokenizer: Tokenizer) -> None:
    """Prompt and completion tokenized apart: the prompt's ids are a prefix of both sequences, and never scored."""
    prompt = (Message("user", "What does open_ball do? It"),)
    for text in (" opens", "opens", ""):
        one = response_sequence(prompt, (Message("assistant", text),), tokenizer)
        begin = render(prompt, tokenizer).ids
        assert one.ids[: len(begin)] == begin
        assert one.ids == render([*prompt, Message("assistant", text)], tokenizer).ids
        assert not any(one.scored[: len(begin) + 1])


def test_of_several_turns_only_those_after_the_prompt_are_scored(tokenizer: Tokenizer) -> None:
    prompt = (Message("user", "a"), Message("assistant", "first"), Message("user", "b"))
    response = (Message("assistant", "x"), Message("user", "c"), Message("assistant", "y"))
    one = response_sequence(prompt, response, tokenizer)
    scored = [token for token, inside in zip(one.ids, one.scored, strict=True) if inside]
    assert tokenizer.decode(scored, specials=True).count("<|end_of_turn|>") == 2
    assert "first" not in tokenizer.decode(scored)


def test_equal_responses_and_too_long_ones_are_dropped_and_counted(
    examples: list[Example], tokenizer: Tokenizer, start: Path, tmp_path: Path
) -> None:
    """chosen = rejected; and a completion that truncation would empty: dropped whole, never cut."""
    records = rankings(examples)
    records.append(ranking(examples[1], examples[1].answer))
    records += [ranking(examples[2], "long " * 200), ranking(examples[3], "so", better="long " * 200)]
    context = context_with(records, tmp_path, examples, tokenizer, start)
    session = Dpo(**SETTINGS).prepare(context)
    assert isinstance(session, PreferenceSession)
    assert session.dropped == {"too_long": 2, "equal": 1}
    assert len(session.groups) == len([r for r in records if r.split == "train"]) - 3


def test_data_without_a_usable_pair_is_refused(
    examples: list[Example], tokenizer: Tokenizer, start: Path, tmp_path: Path
) -> None:
    same = [ranking(one, one.answer, "held_out" if at < 3 else "train") for at, one in enumerate(examples)]
    context = context_with(same, tmp_path, examples, tokenizer, start)
    with pytest.raises(DataError, match=r"dpo: of 81 preferences .* 3 held out, 0 and 0 are left that fit"):
        Dpo(**SETTINGS).prepare(context)


def test_rankings_come_before_made_pairs_and_ties_are_left_out(examples: list[Example]) -> None:
    prompt = (Message("user", "?"),)
    three = Ranking(id="r", prompt=prompt, responses=tuple((Message("assistant", c),) for c in "abc"),
                    ranks=(2, 1, 2))  # fmt: skip
    pairs = response_pairs(AlignmentData([three]), "train", made=5, seed=0)
    assert [(pair.chosen[0].content, pair.rejected[0].content) for pair in pairs] == [("b", "a"), ("b", "c")]
    assert response_pairs(AlignmentData([three]), "held_out", made=5, seed=0) == []


def test_made_pairs_are_of_every_kind_and_equal_for_equal_seeds(
    examples: list[Example], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    talks = method_context(tmp_path, examples, tokenizer).data.conversations("train")
    assert len(faulty_pairs(talks, 5, 0)) == 15
    assert faulty_pairs(talks, 5, 0) == faulty_pairs(talks, 5, 0)
    assert faulty_pairs(talks, 5, 0) != faulty_pairs(talks, 5, 1)


def test_the_reference_is_computed_once_and_kept_for_a_resumed_run(
    examples: list[Example], tokenizer: Tokenizer, start: Path, tmp_path: Path
) -> None:
    context = context_with(rankings(examples), tmp_path, examples, tokenizer, start)
    method = Dpo(**SETTINGS)
    first = method.prepare(context)
    assert isinstance(first, PreferenceSession)
    kept = (tmp_path / "resume" / REFERENCE_FILE).read_bytes()
    computed: list[int] = []

    class Counting(PreferenceSession):
        def _log_probs(self, policy: Any, groups: Any) -> Any:
            computed.append(len(groups))
            return super()._log_probs(policy, groups)

    second = Counting(method, context, first.groups, first.held_out)
    assert computed == []
    assert torch.equal(second.reference, first.reference)
    assert (tmp_path / "resume" / REFERENCE_FILE).read_bytes() == kept


def test_ktos_reference_point_is_of_the_whole_step_at_its_weights(
    examples: list[Example], tokenizer: Tokenizer, start: Path, tmp_path: Path
) -> None:
    """At the reference policy it is 0; once all mismatched log-ratios are moved, it is their mean, in every batch."""
    context = method_context(
        tmp_path, examples, tokenizer, SITE.model_copy(update={"micro_batch": 1}), start=start
    )
    session: Any = Kto(made=20, **SETTINGS).prepare(context)
    batches = session.batches(0)
    assert len(batches) == 4
    assert all(batch.reference_point == pytest.approx(0, abs=1e-5) for batch in batches)
    session.micro_batches = [
        replace(batch, reference=batch.reference - 0.75) for batch in session.micro_batches
    ]
    assert [batch.reference_point for batch in session.batches(0)] == pytest.approx([0.75] * 4, abs=1e-4)


def test_labelled_responses_are_read_as_they_are(
    examples: list[Example], tokenizer: Tokenizer, start: Path, tmp_path: Path
) -> None:
    records = [
        LabelledResponse(id=str(at), split="held_out" if at % 7 == 0 else "train", good=at % 2 == 0,
                         prompt=(Message("user", one.question),), response=(Message("assistant", one.answer),))
        for at, one in enumerate(examples)
    ]  # fmt: skip
    session: Any = Kto(**SETTINGS).prepare(context_with(records, tmp_path, examples, tokenizer, start))
    labels = [group.desirable for group in session.groups]
    assert len(labels) == 72
    assert sum(labels) == sum(record.good for record in records if record.split == "train")
