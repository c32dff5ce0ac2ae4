"""An artifact's identity is what is made, never where, how or when."""

from typing import ClassVar

import pytest

from groundup.core.fingerprint import canonical_json, digest, fingerprint_payload
from groundup.core.recipe import Recipe
from groundup.core.registry import plugin_source_digest


class Inner(Recipe):
    """A part of a recipe."""

    size: int = 3


class Outer(Recipe):
    """A recipe with a field that says where."""

    not_identity: ClassVar[frozenset[str]] = frozenset({"paths"})
    rate: float = 0.5
    paths: tuple[str, ...] = ()
    inner: Inner = Inner()


def identity(recipe: Recipe, **changes: object) -> str:
    said = {"stage": "s", "version": 1, "inputs": {"raw": "abc"}, "external": None} | changes
    return digest(fingerprint_payload(recipe=recipe, **said))  # type: ignore[arg-type]


def test_fields_at_their_default_are_not_spelled() -> None:
    identity = {"part": "test_fingerprint.Outer/1", "source": plugin_source_digest(Outer())}
    assert canonical_json(Outer()) == identity
    assert canonical_json(Outer(rate=0.25)) == identity | {"rate": 0.25}


def test_a_field_that_says_where_is_never_spelled() -> None:
    assert identity(Outer(paths=("/here",))) == identity(Outer(paths=("/there",)))


def test_recipe_inputs_version_and_outside_each_change_it() -> None:
    prints = {
        identity(Outer()),
        identity(Outer(rate=1.0)),
        identity(Outer(inner=Inner(size=4))),
        identity(Outer(), version=2),
        identity(Outer(), inputs={"raw": "abd"}),
        identity(Outer(), external={"a.txt": "00"}),
        identity(Outer(), stage="t"),
    }
    assert len(prints) == 7


def test_the_order_of_keys_in_outside_does_not_matter() -> None:
    assert identity(Outer(), external={"a": 1, "b": 2}) == identity(Outer(), external={"b": 2, "a": 1})


def test_what_has_no_stable_spelling_is_refused() -> None:
    with pytest.raises(TypeError, match="can't hold a set"):
        canonical_json({"key": {1, 2}})
