"""Rules that answer questions without a model: what every score of a model has to be compared with.

in:  taught examples, the examples to answer, passages of the corpus
out: the answer of each rule to each example

question   the question itself
other      the reference answer to another question of the same kind: the form without the facts
template   the taught answer of the same kind that is most like the others, with the names of its question replaced
           by those of this question
nearest    the answer to the most similar taught question (BM25), its names replaced in the same way
passage    the first line of the passage that the search finds for the question (BM25)

No rule reads the reference answer of the example that it answers; for a taught question that includes its own entry.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from groundup.core.rng import derive_seed
from groundup.evaluate.chrf import chrf
from groundup.evaluate.tasks import Example
from groundup.text.retrieval.retriever import Retriever
from groundup.text.retrieval.search import SearchIndex

RULES = ("question", "other", "template", "nearest", "passage")
TEMPLATE_CANDIDATES, TEMPLATE_COMPARED = 16, 32
"""Taught answers of a kind that may become its template, and the answers that they are compared with."""
FORM_SHARE = 0.03
"""A word in this fraction of a kind's questions belongs to the question's form, not to what it asks about."""
_WORD = re.compile(r"\w[\w.]*\w|\w")


@dataclass(frozen=True)
class Baselines:
    """The rules, prepared from taught examples and the search among passages."""

    taught: Mapping[str, Sequence[Example]]
    templates: Mapping[str, Example]
    forms: Mapping[str, frozenset[str]]
    questions: SearchIndex
    order: Sequence[Example]
    retriever: Retriever

    def answers(self, example: Example) -> dict[str, str]:
        """Each rule's answer; "" where a rule has none."""
        return {
            "question": example.question,
            "other": self._other(example),
            "template": self._template(example),
            "nearest": self._nearest(example),
            "passage": self._passage(example),
        }

    def _other(self, example: Example) -> str:
        others = [item for item in self.taught.get(example.kind, ()) if item.subject != example.subject]
        return others[derive_seed(example.id, "baseline") % len(others)].answer if others else ""

    def _template(self, example: Example) -> str:
        template = self.templates.get(example.kind)
        return self._renamed(template, example) if template else ""

    def _nearest(self, example: Example) -> str:
        nearest = [self.order[index] for index in self.questions.search(example.question, 2)]
        other = next((item for item in nearest if item.id != example.id), None)
        return self._renamed(other, example) if other else ""

    def _passage(self, example: Example) -> str:
        matches = self.retriever.find([example.question], 1)
        return matches[0].text.split("\n", 1)[0] if matches else ""

    def _renamed(self, other: Example, example: Example) -> str:
        """The answer to `other`, the names of its question replaced by those of this question."""
        old, new = (question_name(item, self.forms.get(item.kind, frozenset())) for item in (other, example))
        return rename(other.answer, old, new)


def prepare_baselines(taught: Sequence[Example], retriever: Retriever) -> Baselines:
    """Index the taught questions, and choose a template for each kind of question."""
    by_kind: dict[str, list[Example]] = defaultdict(list)
    for example in taught:
        by_kind[example.kind].append(example)
    forms = {kind: form_words(item.question for item in examples) for kind, examples in by_kind.items()}
    return Baselines(
        taught=by_kind,
        templates={kind: choose_template(examples, forms[kind]) for kind, examples in by_kind.items()},
        forms=forms,
        questions=SearchIndex([example.question for example in taught]),
        order=taught,
        retriever=retriever,
    )


def form_words(questions: Iterable[str]) -> frozenset[str]:
    """The words that many questions of one kind have in common."""
    counts: Counter[str] = Counter()
    total = 0
    for question in questions:
        counts.update(set(_WORD.findall(question)))
        total += 1
    return frozenset(word for word, count in counts.items() if count > FORM_SHARE * total)


def question_name(example: Example, form: frozenset[str]) -> str:
    """The subject of a question if the question contains it, else its first word that is not in `form`."""
    if example.subject in example.question:
        return example.subject
    return next((word for word in _WORD.findall(example.question) if word not in form), "")


def rename(text: str, old: str, new: str) -> str:
    """A text with one name replaced by another, and the last part of the name likewise."""
    if not old or not new:
        return text
    pairs = {old: new, old.rsplit(".", 1)[-1]: new.rsplit(".", 1)[-1]}
    pattern = "|".join(re.escape(name) for name in pairs)  # the full name comes first and wins
    return re.sub(rf"(?<!\w)(?:{pattern})(?!\w)", lambda match: pairs[match[0]], text)


def choose_template(examples: Sequence[Example], form: frozenset[str]) -> Example:
    """The example whose answer, renamed, has the highest mean chrF against others of its kind."""
    compared = _spread(examples, TEMPLATE_COMPARED)

    def likeness(candidate: Example) -> float:
        name = question_name(candidate, form)
        return sum(
            chrf(rename(candidate.answer, name, question_name(other, form)), other.answer)
            for other in compared
            if other.id != candidate.id
        )

    return max(_spread(examples, TEMPLATE_CANDIDATES), key=likeness)


def _spread(examples: Sequence[Example], count: int) -> Sequence[Example]:
    """`count` examples, chosen by a hash."""
    return sorted(examples, key=lambda example: derive_seed(example.id, "template"))[:count]
