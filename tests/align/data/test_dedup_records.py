"""Duplicates, evaluation items and near-identical prompts among records from files; and what the stage reports."""

import json
from pathlib import Path

import pytest
from dataset_helpers import lines

from artifact_helpers import published
from groundup.align.data.data import Data, data
from groundup.align.data.datasets.conversations import Conversations
from groundup.align.data.datasets.preferences import Preferences
from groundup.align.data.file_rows import FileDataset
from groundup.core.errors import DataError
from groundup.core.progress import Reporter
from groundup.core.runtime import Runtime
from groundup.core.stage import Metrics, StageContext
from groundup.evaluate.alignment_data import AlignmentData
from groundup.text.curate.decontaminate import Decontaminate
from groundup.text.documents import DocumentWriter, read_rejects_log

LONG = (
    "tell me in a few words how the old wooden bridge over the river was built and who paid for it in the end"
)


def built(
    folder: Path, *datasets: FileDataset, evaluation: str = ""
) -> tuple[AlignmentData, Metrics, dict[str, str]]:
    """The records, the metrics, and the reason of every row that isn't used."""
    with DocumentWriter(folder / "curate" / "documents" / "00000.parquet"):
        pass
    recipe = Data(datasets=datasets, decontaminate=Decontaminate(paths=(evaluation,) if evaluation else ()))
    context = StageContext(folder / "artifacts" / "data.part", Reporter(quiet=True))
    metrics = data(recipe, Runtime(), context, published(folder / "curate", "curate", "corpus"))
    reasons = {entry.detail.split(":")[0]: entry.reason for entry in read_rejects_log(context.path)}
    return AlignmentData.load(context.path), metrics, reasons


def chat(question: str, answer: str) -> dict[str, str]:
    return {"prompt": question, "completion": answer}


def test_equal_and_nearly_equal_conversations_are_dropped(tmp_path: Path) -> None:
    answer = " ".join(f"word{n}" for n in range(40))
    rows = [
        chat(LONG, answer),
        chat(LONG, answer),
        chat(LONG, f"{answer} more"),
        chat("Why?", "So."),
        chat("Why?", "No."),
    ]
    paths = (lines(tmp_path, rows),)
    _, metrics, reasons = built(tmp_path / "near", Conversations(paths=paths, held_out=0))
    assert metrics["conversations"] == 3
    assert reasons == {"rows.jsonl, line 2": "exact_duplicate", "rows.jsonl, line 3": "near_duplicate"}
    _, metrics, _ = built(tmp_path / "exact", Conversations(paths=paths, held_out=0, duplicates="exact"))
    assert metrics["conversations"] == 4
    _, metrics, _ = built(tmp_path / "keep", Conversations(paths=paths, held_out=0, duplicates="keep"))
    assert metrics["conversations"] == 5


def test_rankings_of_one_prompt_are_not_duplicates_of_one_another(tmp_path: Path) -> None:
    answer = " ".join(f"word{n}" for n in range(40))
    rows = [{"prompt": LONG, "chosen": answer, "rejected": text} for text in ("no", "yes", "no")]
    _, metrics, reasons = built(tmp_path, Preferences(paths=(lines(tmp_path, rows),), held_out=0))
    assert metrics["rankings"] == 2 and reasons == {"rows.jsonl, line 3": "exact_duplicate"}


def test_no_prompt_is_on_both_sides_also_where_it_differs_in_a_word(tmp_path: Path) -> None:
    same = [chat(f"{LONG} {word}", f"answer {word}") for word in ("please", "now", "today", "again")]
    other = [chat(f"Question {n}?", f"answer {n}") for n in range(30)]
    ranked = [{"prompt": f"question {n}?", "chosen": "a", "rejected": "b"} for n in range(30)]
    for held_out in (0.2, 0.5, 0.8):
        made, _, _ = built(
            tmp_path / str(held_out),
            Conversations(paths=(lines(tmp_path, same + other),), held_out=held_out),
            Preferences(paths=(lines(tmp_path, ranked, "ranked.jsonl"),), held_out=0.5),
        )
        sides = [
            {record.group for record in (*made.conversations(split), *made.rankings(split))}
            for split in ("train", "held_out")
        ]
        assert sides[0] and sides[1] and not sides[0] & sides[1]
        assert len({record.group for record in (*made.conversations("train"), *made.conversations("held_out"))
                    if "bridge" in record.messages[0].content}) == 1  # fmt: skip


def test_rows_with_an_evaluation_item_are_dropped(tmp_path: Path) -> None:
    evaluation = lines(tmp_path, [{"question": LONG}], "eval.jsonl")
    rows = [chat("Why?", f"People say: {LONG}"), chat("How?", "So.")]
    made, _, reasons = built(
        tmp_path / "made", Conversations(paths=(lines(tmp_path, rows),), held_out=0), evaluation=evaluation
    )
    assert reasons == {"rows.jsonl, line 1": "evaluation_item"}
    assert [talk.messages[0].content for talk in made.conversations("train")] == ["How?"]


def test_a_table_without_a_usable_row_names_the_most_frequent_reasons(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "completion": ""}] * 3 + [{"text": "x"}]
    with pytest.raises(DataError) as refused:
        built(tmp_path / "made", Conversations(name="support", paths=(lines(tmp_path, rows),)))
    message = str(refused.value)
    assert (
        "[[data]] `support`: no row can be used; 4 rows rejected: unknown_format (4); for example" in message
    )
    assert (
        "rows.jsonl, line 1: no known layout of conversations; the columns are prompt, completion" in message
    )


def test_the_rejects_log_can_be_read_without_the_program(tmp_path: Path) -> None:
    rows = [chat("q", "a"), {"prompt": "q", "completion": 5}]
    built(tmp_path, Conversations(paths=(lines(tmp_path, rows),), held_out=0))
    (line,) = (tmp_path / "rejects" / "data.jsonl").read_text().splitlines()
    assert json.loads(line)["detail"].startswith("rows.jsonl, line 2: `completion` is int")


def test_lengths_are_words_of_prompts_and_responses(tmp_path: Path) -> None:
    rows = [chat("one two three", "four"), chat("one", "two three")]
    _, metrics, _ = built(tmp_path, Conversations(paths=(lines(tmp_path, rows),), held_out=0))
    assert metrics["words"]["conversations"] == {
        "prompt": {"median": 1, "p95": 1, "max": 3},
        "response": {"median": 1, "p95": 1, "max": 2},
    }
