"""Passages: what of a document can be found and put into a prompt."""

from groundup.core.records import Document
from groundup.text.retrieval.corpus_passages import cut_passages, document_passages

SOURCE = '''"""Text wrapping and filling."""

def dedent(text, *, tabs=8):
    """Remove any common leading whitespace from every line.

    Tabs and spaces are both treated as whitespace. They are not equal.
    """

def _private(): "not for the public, never found"

class Wrapper:
    def fill(self, text, width=70):
        """Reformat the text to fit in lines of at most this width."""
'''
PROSE = """# Rivers

A river flows to the sea. It never flows uphill.

It has two banks.

## Lakes

A lake does not flow.
"""


def document(text: str, path: str) -> Document:
    return Document("d" * 16, text, "s", path)


def test_a_python_objects_passage_begins_as_the_answers_about_it_do() -> None:
    passages = {item.name: item for item in document_passages(document(SOURCE, "pack/wrap.py"), 400)}
    assert list(passages) == ["pack.wrap", "pack.wrap.dedent", "pack.wrap.Wrapper.fill"]
    assert passages["pack.wrap.dedent"].text.split("\n") == [
        "pack.wrap.dedent: Remove any common leading whitespace from every line.",
        "pack.wrap.dedent: def dedent(text, *, tabs=8)",
        "Tabs and spaces are both treated as whitespace. They are not equal.",
    ]
    assert passages["pack.wrap.dedent"].path == "pack/wrap.py"


def test_a_passage_ends_after_the_last_sentence_that_fits() -> None:
    passages = {item.name: item.text for item in document_passages(document(SOURCE, "pack/wrap.py"), 170)}
    assert passages["pack.wrap.dedent"].endswith("treated as whitespace.")


def test_prose_is_cut_under_its_headings_and_loses_no_sentence() -> None:
    passages = list(document_passages(document(PROSE, "water.md"), 60))
    assert [(item.name, item.text) for item in passages] == [
        ("Rivers", "A river flows to the sea. It never flows uphill."),
        ("Rivers", "It has two banks."),
        ("Lakes", "A lake does not flow."),
    ]
    long = "One sentence of seven words stands here. " * 200
    pieces = [item.text for item in document_passages(document(long, "long.txt"), 100)]
    assert max(map(len, pieces)) <= 100
    assert " ".join(pieces).split() == long.split()


def test_a_sentence_longer_than_a_passage_is_cut() -> None:
    pieces = [item.text for item in document_passages(document("x" * 250, "x.txt"), 100)]
    assert [len(piece) for piece in pieces] == [100, 100, 50]


def test_of_too_many_passages_a_hash_chooses_and_their_order_stays() -> None:
    documents = [document(f"Paragraph number {number} of a text.", f"{number}.txt") for number in range(50)]
    everything = cut_passages(documents, 100, 1000)
    some = cut_passages(documents, 100, 10)
    assert len(everything) == 50 and len(some) == 10
    assert some == [item for item in everything if item in some]
    assert some == cut_passages(reversed(documents), 100, 10)[::-1]
