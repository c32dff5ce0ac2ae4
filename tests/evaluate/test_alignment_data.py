"""Records of alignment on disk: what is written is read, and prompts come from the other kinds where there are none."""

from pathlib import Path

from groundup.core.records import Conversation, LabelledResponse, Message, Prompt, Ranking, Record
from groundup.evaluate.alignment_data import AlignmentData, write_records

HELLO, HI = Message("user", "Hello\u2028there"), Message("assistant", "Hi", in_loss=False)
CALL = Message("tool", "{}", name="search")
CHAT = Conversation(id="1", kind="chat", group="g", source="a", messages=(HELLO, HI, CALL, HI))
RANKED = Ranking(
    id="2",
    source="b",
    prompt=(HELLO,),
    responses=((HI,), (CALL, HI), (Message("assistant", "Best"),)),
    ranks=(2, 2, 1),
    scores=(0.5, 0.5, 2.0),
    margin=1.5,
    annotator="p",
)
BAD = LabelledResponse(id="3", source="b", prompt=(HELLO, HI), response=(HI,), good=False, split="held_out")
ASK = Prompt(id="4", source="c", messages=(HELLO,), answer="5", verifier="math", metadata={"names": ["x"]})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    records: list[Record] = [CHAT, RANKED, BAD, ASK]
    write_records(tmp_path, records)
    data = AlignmentData.load(tmp_path)
    assert data.conversations("train") == [CHAT]
    assert data.rankings("train") == [RANKED]
    assert data.labelled("held_out") == [BAD] and data.labelled("train") == []
    assert data.prompts("train") == [ASK]
    write_records(tmp_path / "again", records)
    assert all(
        (tmp_path / "again" / path.name).read_bytes() == path.read_bytes() for path in tmp_path.glob("*.zst")
    )


def test_a_step_reads_only_the_tables_that_it_names(tmp_path: Path) -> None:
    write_records(tmp_path, [CHAT, RANKED, BAD, ASK])
    data = AlignmentData.load(tmp_path, ["b"])
    assert data.conversations("train") == []
    assert data.rankings("train") == [RANKED]


def test_without_prompts_of_their_own_the_other_kinds_give_each_prompt_once() -> None:
    (first, second), (third,) = (
        AlignmentData([CHAT, RANKED, BAD]).prompts(split) for split in ("train", "held_out")
    )
    assert (first.messages, first.answer) == ((HELLO, HI, CALL), "Hi")
    assert (second.messages, second.answer) == ((HELLO,), "Best")
    assert (third.messages, third.answer) == ((HELLO, HI), None)
    twin = Conversation(id="5", messages=(HELLO, HI))
    assert len(AlignmentData([RANKED, twin]).prompts("train")) == 1


def test_a_ranking_gives_its_pairs_and_ties() -> None:
    assert RANKED.pairs() == [(2, 0), (2, 1)]
    assert RANKED.ties() == [(0, 1)]
