"""The conversation: turns, a full context, the system prompt, and the work that a later turn saves."""

from dataclasses import replace

import pytest
import torch

from groundup.core.records import Message
from groundup.infer.engine import PrefixCache
from groundup.model.decoder import Decoder
from groundup.serve.conversation import Chat, ChatOptions, ContextFull, Grounding, cast_matrices
from groundup.text.retrieval.corpus_passages import Passage
from groundup.text.retrieval.retriever import Retriever
from groundup.tokens.chat import prompt


def answer(chat: Chat, question: str) -> str:
    return "".join(chat.ask(question))


def test_an_answer_comes_in_pieces_and_both_turns_are_kept(chat: Chat) -> None:
    pieces = list(chat.ask("what?"))
    assert len(pieces) > 2
    assert [message.role for message in chat.messages] == ["user", "assistant"]
    assert chat.messages[1].content == "".join(pieces)
    list(chat.ask("and?"))
    assert len(chat.messages) == 4


def test_earlier_turns_and_the_system_prompt_change_the_answer(chat: Chat) -> None:
    fresh = answer(chat, "and?")
    chat.messages = []
    answer(chat, "what is the answer?")
    assert answer(chat, "and?") != fresh
    chat.messages = []
    assert answer(chat, "and?") == fresh
    chat.messages, chat.options = [], replace(chat.options, system="the question")
    assert answer(chat, "and?") != fresh


def test_an_answer_counts_its_tokens_and_says_why_it_ended(chat: Chat) -> None:
    text = answer(chat, "what?")
    assert chat.answer is not None
    ids = prompt([Message("user", "what?")], chat.tokenizer)
    assert (chat.answer.text, chat.answer.prompt_tokens) == (text, len(ids))
    assert (chat.answer.finish_reason, chat.answer.completion_tokens) == ("length", 8)
    first = next(iter(chat.engine.stream(ids, 1, 0)))
    chat.engine.stop, chat.messages = frozenset({first}), []
    assert answer(chat, "what?") == ""
    assert (chat.answer.finish_reason, chat.answer.completion_tokens) == ("stop", 0)


def test_a_full_context_drops_the_oldest_turns_whole_and_never_the_system_prompt(chat: Chat) -> None:
    chat.options = replace(chat.options, system="question")
    questions = [f"what is {number}?" for number in range(6)]
    dropped = []
    for question in questions:
        answer(chat, question)
        assert chat.answer is not None
        dropped.append(chat.answer.dropped_turns)
        assert chat.answer.prompt_tokens + chat.answer.completion_tokens <= chat.context
        assert [message.role for message in chat.messages] == ["user", "assistant"] * (
            len(chat.messages) // 2
        )
    assert dropped[0] == 0 and 2 in dropped
    kept = [message.content for message in chat.messages if message.role == "user"]
    assert kept == questions[-len(kept) :] and len(kept) > 1
    assert chat.turn_messages(chat.messages)[0] == Message("system", "question")


def test_a_question_that_leaves_no_room_is_refused_and_keeps_the_conversation(chat: Chat) -> None:
    answer(chat, "what?")
    before = list(chat.messages)
    with pytest.raises(ContextFull, match=r"takes \d+ tokens of a context of 48.*Ask something shorter$"):
        answer(chat, "zqx" * 40)
    assert chat.messages == before
    chat.options = replace(chat.options, system="zqx" * 40)
    with pytest.raises(ContextFull, match="or shorten --system"):
        answer(chat, "what?")


def test_an_interrupted_answer_is_kept_as_far_as_it_came(chat: Chat) -> None:
    pieces = chat.ask("what?")
    begun = next(pieces) + next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert chat.messages == [Message("user", "what?"), Message("assistant", begun)]
    assert chat.answer is not None and chat.answer.finish_reason == "interrupted"


def computed_positions(chat: Chat, monkeypatch: pytest.MonkeyPatch, question: str) -> int:
    """Positions that the model computes for an answer."""
    counts = []
    whole = Decoder.hidden

    def hidden(self: Decoder, ids: torch.Tensor, **options: object) -> torch.Tensor:
        counts.append(ids.numel())
        return whole(self, ids, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Decoder, "hidden", hidden)
        answer(chat, question)
    return sum(counts)


def test_a_later_turn_computes_only_what_is_new_and_gives_the_same_answer(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(chat, "what is the answer?")
    fresh = replace(chat, messages=list(chat.messages), prefix=PrefixCache())
    assert chat.answer is not None
    first_prompt = chat.answer.prompt_tokens
    spent = computed_positions(chat, monkeypatch, "and?")
    whole = computed_positions(fresh, monkeypatch, "and?")
    assert fresh.answer == chat.answer
    assert fresh.answer is not None
    assert whole >= fresh.answer.prompt_tokens
    # The first answer's ids are reused as far as its text is encoded to the ids that were sampled.
    assert spent <= whole - first_prompt


def test_a_turn_after_an_interrupted_one_is_right(chat: Chat) -> None:
    pieces = chat.ask("what is the answer?")
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    fresh = replace(chat, messages=list(chat.messages), prefix=PrefixCache())
    assert answer(chat, "and?") == answer(fresh, "and?")


def test_matrices_that_are_cast_once_give_the_same_numbers(chat: Chat) -> None:
    model = chat.engine.model
    model.compute_dtype = torch.bfloat16
    ids = torch.tensor([prompt([Message("user", "what is it?")], chat.tokenizer)])
    before = model(ids)
    cast_matrices(model, torch.bfloat16)
    assert torch.equal(model(ids), before)
    assert ChatOptions().temperature == 0


def test_passages_stand_in_the_prompt_of_the_newest_question_and_support_the_answer(chat: Chat) -> None:
    passage = Passage("what", "q.py", "what is the answer?")
    chat.grounding = Grounding(Retriever([passage, Passage("x", "x.py", "question")]), 1)
    turns, ids, passages = chat._fitted([Message("user", "answer?")])
    assert passages == [passage]
    expected = [Message("system", passage.text), Message("user", "answer?")]
    assert chat.turn_messages(turns, passages) == expected
    assert ids == prompt(expected, chat.tokenizer)
    answer(chat, "answer?")
    assert [message.role for message in chat.messages] == ["user", "assistant"]


def test_a_long_question_is_asked_without_passages_before_it_is_refused(chat: Chat) -> None:
    question = "what is the answer to the question? " * 3
    plain = len(prompt([Message("user", question)], chat.tokenizer))
    chat.grounding = Grounding(Retriever([Passage("q", "q.py", "the answer is " * 20)]), 1)
    assert plain < chat.context
    answer(chat, question)
    assert chat.answer is not None and chat.answer.prompt_tokens == plain
    assert chat.answer.source is None
