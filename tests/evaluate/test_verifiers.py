"""Verifiers: a contract that all of them fulfil, and what each accepts."""

from typing import Any

import pytest

from groundup.core.blueprint import load
from groundup.core.errors import BlueprintError
from groundup.core.recipe import Recipe
from groundup.core.registry import Plugin
from groundup.evaluate.chrf import chrf
from groundup.evaluate.verifiers import Verifier
from groundup.evaluate.verifiers.exact import Exact
from groundup.evaluate.verifiers.json_schema import JsonSchema
from groundup.evaluate.verifiers.math_equal import MathEqual
from groundup.evaluate.verifiers.regex import Regex
from groundup.evaluate.verifiers.similarity import Similarity
from groundup.evaluate.verifiers.weighted_sum import WeightedSum

REGISTRY = Plugin("groundup.evaluate.verifiers")
ODD_RESPONSES = ("", " ", "\x00", "�", "\\boxed{", "####", "[" * 5000, "1e999", "9" * 5000, "1/0", "\\frac{1}{0}",
                 "NaN", "a" * 10_000, "{\"a\": NaN}", "½", "٣", "%", "-", "1,2,3")  # fmt: skip


def value(verifier: Verifier, response: str, reference: str = "") -> float:
    return verifier.score("", response, reference).value


@pytest.mark.parametrize("name", REGISTRY.names())
def test_every_verifier_scores_any_response_and_always_the_same(name: str) -> None:
    verifier: Any = REGISTRY.load(name)()
    for response in ODD_RESPONSES:
        for reference in ("", "7", response):
            first = verifier.score("What is 3 + 4?", response, reference)
            assert 0 <= first.value <= 1, (name, response, reference)
            assert verifier.score("What is 3 + 4?", response, reference) == first


@pytest.mark.parametrize("name", REGISTRY.names())
def test_every_verifier_with_its_defaults_gives_a_right_answer_one(name: str) -> None:
    verifier: Any = REGISTRY.load(name)()
    if name == "weighted_sum":  # without parts, the sum is 0
        verifier = WeightedSum(parts=(Exact(),), weights=(1.0,))
    assert verifier.score("What is 3 + 4?", "7", "7").value == 1


def test_exact_ignores_white_space_and_more_only_where_asked() -> None:
    assert value(Exact(), " a  b\n", "a b") == 1
    assert value(Exact(), "A b.", "a b") == 0
    assert value(Exact(ignore_case=True), "A b.", "a b") == 0
    assert value(Exact(ignore_case=True, ignore_punctuation=True), "A b.", "a b") == 1


def test_a_pattern_matches_anywhere_or_the_whole_and_its_answer_equals_the_reference() -> None:
    assert value(Regex(pattern=r"\d+"), "it is 7") == 1
    assert value(Regex(pattern=r"\d+", whole=True), "it is 7") == 0
    assert value(Regex(pattern=r"\d+", whole=True), " 7\n") == 1
    named = Regex(pattern=r"answer: (?P<answer>\w+)")
    assert value(named, "the answer: yes", "yes") == 1
    assert value(named, "the answer: no", "yes") == 0
    assert value(named, "yes", "yes") == 0


@pytest.mark.parametrize(
    ("response", "reference", "expected"),
    [
        ("85", "85", 1),
        ("The answer is 42.", "42", 1),
        ("it is \\boxed{\\frac{1}{2}}, not 3", "0.5", 1),
        ("\\boxed{\\dfrac{-3}{4}}", "-3/4", 1),
        ("$-\\frac{3}{4}$", "-0.75", 1),
        ("1,234,567", "1234567", 1),
        ("10%", "0.1", 1),
        ("10\\%", "0.1", 1),
        ("steps: 3 + 4\n#### 7", "7", 1),
        ("7", "so we add 3 and 4\n#### 7", 1),
        ("7 or 8", "7", 0),
        ("0.333", "1/3", 0),
        ("12 apples", "12", 1),
        ("12", "13", 0),
        ("", "7", 0),
        ("seven", "7", 0),
        ("\\boxed{x + 1}", "\\boxed{x+1}", 1),
        ("\\boxed{\\text{yes}a}", "\\boxed{a}", 1),
        ("\\boxed{7", "7", 1),
        ("1e3", "1000", 1),
        (".5", "1/2", 1),
        ("+5", "5", 1),
        ("5.", "5", 1),
        ("3/4 of it", "0.75", 1),
        ("1,2", "12", 0),
        ("7", "", 0),
    ],
)
def test_math_compares_the_final_numbers_exactly(response: str, reference: str, expected: float) -> None:
    assert value(MathEqual(), response, reference) == expected


def test_math_with_a_tolerance_or_without_the_last_number() -> None:
    assert value(MathEqual(tolerance=0.01), "0.333", "1/3") == 1
    assert value(MathEqual(last_number=False), "The answer is 42.", "42") == 0
    assert value(MathEqual(last_number=False), "\\boxed{42}", "42") == 1


def test_json_satisfies_a_schema_and_equals_the_reference_where_asked() -> None:
    schema = {"type": "object", "required": ["name"], "properties": {"age": {"type": "integer"}}}
    right = JsonSchema(json_schema=schema)
    assert value(right, '{"name": "bob", "age": 3}') == 1
    assert value(right, '{"name": "bob", "age": "3"}') == 0
    assert value(right, '{"age": 3}') == 0
    assert value(right, '{"name": ') == 0
    equal = JsonSchema(equal=True)
    assert value(equal, '{"b": 1, "a": [2]}', '{"a": [2], "b": 1}') == 1
    assert value(equal, "true", "1") == 0


def test_similarity_is_chrf_or_a_threshold() -> None:
    assert value(Similarity(), "the gate opens", "the gate closes") == pytest.approx(
        chrf("the gate opens", "the gate closes") / 100
    )
    assert value(Similarity(threshold=0.3), "the gate opens", "the gate closes") == 1
    assert value(Similarity(threshold=0.9), "the gate opens", "the gate closes") == 0


def test_a_weighted_sum_adds_and_names_its_parts() -> None:
    verifier = WeightedSum(parts=(Exact(), Regex(pattern="a"), Regex(pattern="z")), weights=(1.0, 0.5, 2.0))
    score = verifier.score("", "abc", "abc")
    assert score.value == 1.5
    assert score.parts == {"exact": 1.0, "regex_1": 1.0, "regex_2": 0.0}


class Holder(Recipe):
    """A recipe with a verifier, as the methods have one."""

    verifier: WeightedSum = WeightedSum()


@pytest.mark.parametrize(
    ("verifier", "message"),
    [
        (
            {"parts": [{"use": "exact"}], "weights": [1.0, 2.0]},
            "2 weights for 1 parts: give one weight for each part",
        ),
        ({"parts": [{"use": "regex", "pattern": "("}], "weights": [1.0]}, "is no regular expression"),
        ({"parts": [{"use": "regexp"}]}, "there is no verifier `regexp`. Did you mean `regex`?"),
        ({"parts": [{"use": "json_schema", "json_schema": {"type": "objekt"}}]}, "is no JSON Schema"),
    ],
)
def test_mistakes_in_a_verifier_are_named(verifier: dict[str, Any], message: str) -> None:
    with pytest.raises(BlueprintError) as caught:
        load(Holder, {"verifier": verifier}, [], "x.toml")
    assert message in str(caught.value)
