"""Answers to questions in free words and to follow-up questions, by the model and by a rule without a model.

in:  a finished run whose corpus is the standard library, or a checkpoint with its corpus
out: how many of 20 questions are answered with the facts that tests/evaluate/data/paraphrased_questions.json states,
     and with the right source; recall of the search; exactness and chrF of held-out follow-up questions

    .venv/bin/python benchmarks/answers.py stdlib
    .venv/bin/python benchmarks/answers.py --policy FOLDER --corpus FOLDER --passages 2

The questions were written by hand before any run. The rule answers with the first line of the passage that the search
finds. A follow-up question ("What are its parameters?") does not name its subject; the question before it does.
"""

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.core.runtime import Runtime
from groundup.core.store import Store
from groundup.evaluate.examples import collect, split
from groundup.evaluate.grading import grade_text
from groundup.evaluate.statistics import bootstrap
from groundup.evaluate.tasks import Example
from groundup.evaluate.tasks.docstrings import Docstrings
from groundup.serve.conversation import Chat, ChatOptions, Grounding, open_chat
from groundup.text.documents import read_documents
from groundup.text.retrieval.corpus_passages import cut_passages
from groundup.text.retrieval.retriever import Retriever

QUESTIONS = Path(__file__).resolve().parents[1] / "tests" / "evaluate" / "data" / "paraphrased_questions.json"
FOLLOW_UPS = {"parameters": "What are its parameters?", "signature": "How is it declared?"}
RECALLS = (1, 2, 4)


@dataclass(frozen=True)
class Judged:
    """An answer to a question in free words. right: it states all facts; sourced: it names an expected source."""

    question: str
    answer: str
    source: str
    right: bool
    sourced: bool


def states_facts(answer: str, facts: list[str]) -> bool:
    """Whether an answer contains every fact: a regular expression for its word forms, in any case."""
    return all(re.search(fact, answer, re.IGNORECASE) for fact in facts)


def judge(item: dict[str, Any], answer: str, source: str) -> Judged:
    """An answer with its source path, judged by the item's stated facts."""
    right = states_facts(answer, item["facts"])
    return Judged(item["question"], answer, source, right, right and source in item["sources"])


def ask(chat: Chat, *questions: str) -> str:
    """The answer to the last of a new conversation's questions."""
    chat.messages = []
    return ["".join(chat.ask(question)) for question in questions][-1]


def model_answers(chat: Chat, items: list[dict[str, Any]]) -> list[Judged]:
    """The model's answers; the source is what chat would print."""
    judged = []
    for item in items:
        answer = ask(chat, item["question"])
        source = chat.answer.source if chat.answer and chat.answer.source else ""
        judged.append(judge(item, answer, source.split(", ", 1)[0]))
    return judged


def rule_answers(retriever: Retriever, items: list[dict[str, Any]]) -> list[Judged]:
    """The first line of the passage found, with its path."""
    judged = []
    for item in items:
        found = retriever.find([item["question"]], 1)
        text, path = (found[0].text.split("\n", 1)[0], found[0].path) if found else ("", "")
        judged.append(judge(item, text, path))
    return judged


def recall(retriever: Retriever, items: list[dict[str, Any]]) -> dict[int, int]:
    """Of how many questions one of the first passages states the facts and comes from an expected source."""
    return {
        count: sum(
            any(
                passage.path in item["sources"] and states_facts(passage.text, item["facts"])
                for passage in retriever.find([item["question"]], count)
            )
            for item in items
        )
        for count in RECALLS
    }


def follow_ups(corpus: Path, count: int) -> list[tuple[Example, Example]]:
    """Pairs of a question that names its subject and a held-out question about the same subject."""
    _, held_out = split(collect((Docstrings(),), corpus))
    named = {example.subject: example for example in held_out if example.kind == "does"}
    pairs = [
        (named[example.subject], example)
        for example in held_out
        if example.kind in FOLLOW_UPS and example.subject in named
    ]
    return pairs[:count]


def follow_up_scores(chat: Chat, pairs: list[tuple[Example, Example]]) -> str:
    """Exactness and chrF of the answers to the follow-up questions, clustered by document."""
    scores = [
        grade_text(ask(chat, first.question, FOLLOW_UPS[second.kind]), second.answer)
        for first, second in pairs
    ]
    documents = [second.group for _, second in pairs]
    exact, chrf = (
        bootstrap([item[name] for item in scores], clusters=documents) for name in ("exact", "chrf")
    )
    return (
        f"exact {100 * exact.mean:.0f} % ({100 * exact.low:.0f} to {100 * exact.high:.0f}), "
        f"chrF {chrf.mean:.1f} ({chrf.low:.1f} to {chrf.high:.1f})"
    )


def report(title: str, judged: list[Judged]) -> None:
    """One line with the counts, then every answer."""
    right, sourced = sum(item.right for item in judged), sum(item.sourced for item in judged)
    print(
        f"\n{title}: {right} of {len(judged)} right by their facts, {sourced} of them with the right source"
    )
    for item in judged:
        print(f"  {'+' if item.right else '-'} {item.question}\n      {item.answer}  [{item.source}]")


def main() -> None:
    """Ask, judge, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="?", default="stdlib")
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    parser.add_argument("--policy", type=Path)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--passages", type=int, default=2)
    parser.add_argument("--follow-ups", type=int, default=60)
    options = parser.parse_args()
    policy, corpus = options.policy, options.corpus
    if policy is None or corpus is None:
        stages = Store(options.workspace.absolute()).run(options.run)
        corpus = stages["curate"].path
        policy = next(item.path for item in reversed(stages.values()) if item.kind == "policy")
    items = json.loads(QUESTIONS.read_text(encoding="utf-8"))
    retriever = Retriever(cut_passages(read_documents(corpus)))
    found = recall(retriever, items)
    print("search: " + ", ".join(f"{hits} of {len(items)} within the first {k}" for k, hits in found.items()))
    report("rule, first line of the passage found", rule_answers(retriever, items))
    pairs = follow_ups(corpus, options.follow_ups)
    chat, _ = open_chat(policy, ChatOptions(max_tokens=96), Runtime(device="auto", compile="off"))
    for title, grounding in (
        ("model with passages", Grounding(retriever, options.passages)),
        ("model without passages", None),
    ):
        chat.grounding = grounding
        report(title, model_answers(chat, items))
        print(f"{title}, {len(pairs)} follow-up questions: {follow_up_scores(chat, pairs)}")


if __name__ == "__main__":
    main()
