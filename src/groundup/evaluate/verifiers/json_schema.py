"""Verifier `json_schema`: the response is JSON that satisfies a schema.

in:  a response, a JSON Schema, optionally a reference as JSON
out: 1 where the response parses, satisfies the schema and, with `equal`, equals the reference; else 0

https://json-schema.org, draft 2020-12, by the package jsonschema (extra `verifiers`).
"""

import json
from typing import Any

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from groundup.core.errors import GroundupError
from groundup.core.recipe import Recipe
from groundup.evaluate.verifiers import Score


class JsonSchema(Recipe):
    """1 for a response that is JSON and satisfies a schema."""

    json_schema: dict[str, Any] = Field(
        default={}, description="JSON Schema that the response satisfies; {} = any JSON"
    )
    equal: bool = Field(default=False, description="whether the response must equal the reference as JSON")

    @field_validator("json_schema")
    @classmethod
    def _is_schema(cls, value: dict[str, Any]) -> dict[str, Any]:
        if value:
            try:
                _validator_class().check_schema(value)
            except GroundupError as error:
                raise PydanticCustomError("schema", "{error}", {"error": str(error)}) from None
            except Exception as error:
                message = getattr(error, "message", error)
                raise PydanticCustomError(
                    "schema", "is no JSON Schema: {error}", {"error": str(message)}
                ) from None
        return value

    def score(self, prompt: str, response: str, reference: str) -> Score:
        """See `Verifier`."""
        try:
            value = json.loads(response)
            expected = json.loads(reference) if self.equal else value
        except (ValueError, RecursionError):
            return Score(0.0)
        if self.json_schema and not _validator_class()(self.json_schema).is_valid(value):
            return Score(0.0)
        return Score(float(_canonical(value) == _canonical(expected)))


def _canonical(value: Any) -> str:
    """JSON text with sorted keys; unlike Python's ==, it tells true from 1."""
    return json.dumps(value, sort_keys=True)


def _validator_class() -> Any:
    try:
        from jsonschema import Draft202012Validator
    except ImportError:
        raise GroundupError(
            "the verifier `json_schema` needs the package jsonschema. Install the extra `verifiers`"
        ) from None
    return Draft202012Validator
