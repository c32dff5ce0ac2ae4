"""The stage `data`: splits by prompt, caps and weights; and questions made from documents stay as they were."""

from pathlib import Path

from artifact_helpers import published
from groundup.align.data.data import Data, data, mixed
from groundup.align.data.datasets.generated import Generated
from groundup.core.progress import Reporter
from groundup.core.records import Conversation, Document, Message
from groundup.core.rng import hash_fraction
from groundup.core.runtime import Runtime
from groundup.core.stage import StageContext
from groundup.evaluate.alignment_data import AlignmentData
from groundup.evaluate.examples import collect, split
from groundup.evaluate.tasks.passages import Passages
from groundup.text.documents import DocumentWriter

TEXT = "# The {0}\n\nA {0} is a thing which opens other things. People in the town say that it always did.\n"


def test_generated_questions_are_those_of_the_tasks_in_their_order(tmp_path: Path) -> None:
    folder = tmp_path / "curate"
    with DocumentWriter(folder / "documents" / "00000.parquet") as writer:
        writer.write(Document(f"id{n}", TEXT.format(f"thing{n}"), "files", f"{n}.md") for n in range(60))
    recipe = Data(datasets=(Generated(tasks=(Passages(),)),))
    context = StageContext(tmp_path / "data", Reporter(quiet=True))
    metrics = data(recipe, Runtime(), context, published(folder, "curate", "corpus"))
    made = AlignmentData.load(context.path)
    sides = split(collect(recipe.datasets[0].tasks, folder))
    assert len(sides[0]) > len(sides[1]) > 0
    for name, examples in zip(("train", "held_out"), sides, strict=True):
        questions = [(example.question, example.answer) for example in examples]
        assert [tuple(m.content for m in talk.messages) for talk in made.conversations(name)] == questions
        assert [(prompt.messages[0].content, prompt.answer) for prompt in made.prompts(name)] == questions
    assert metrics["tables"]["generated"]["prompts"] == {"train": len(sides[0]), "held_out": len(sides[1])}


def chats(source: str, prompts: list[str]) -> list[Conversation]:
    return [
        Conversation(
            id=f"{source}-{n}",
            group=prompt,
            source=source,
            messages=(Message("user", prompt), Message("assistant", str(n))),
        )
        for n, prompt in enumerate(prompts)
    ]


def test_a_prompt_that_one_table_holds_out_is_held_out_of_all() -> None:
    tables = [chats("a", [f"p{n}" for n in range(200)]), chats("b", [f"p{n}" for n in range(100, 300)])]
    records = mixed([Generated(name="a", held_out=0.05), Generated(name="b", held_out=0.4)], tables)
    sides = {side: {r.group for r in records if r.split == side} for side in ("train", "held_out")}
    assert not sides["train"] & sides["held_out"]
    assert len(records) == 400 and 80 < len(sides["held_out"]) < 150


def test_a_table_is_held_out_whole_or_not_at_all_where_its_fraction_says_so() -> None:
    tables = [chats("a", ["p", "q"]), chats("b", ["r", "s"])]
    records = mixed([Generated(name="a", held_out=0), Generated(name="b", held_out=1)], tables)
    assert [record.split for record in records] == ["train", "train", "held_out", "held_out"]


def test_cap_and_weight_count_training_records() -> None:
    table = chats("a", [f"p{n}" for n in range(400)])
    held_out = sum(hash_fraction(f"p{n}") < 0.05 for n in range(400))
    capped = mixed([Generated(cap=100)], [table])
    assert len(capped) == 100 + held_out
    doubled = mixed([Generated(weight=2.5)], [table])
    training = len(doubled) - held_out
    assert 2.4 * (400 - held_out) < training < 2.6 * (400 - held_out)
    assert len({record.id for record in mixed([Generated(weight=0.5)], [table])}) < 260
