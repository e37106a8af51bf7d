"""The service's OpenAPI description, as far as FastAPI does not make it of `engine.types`."""

from typing import Any, Literal

from pydantic import BaseModel, Field, TypeAdapter

from engine.wire import PROBLEMS, Problem


class HealthReport(BaseModel):
    """Whether the service is well."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str] = Field(description='By name: "ok", or what is the matter.')


Responses = dict[int | str, dict[str, Any]]


def answer(what: type, status: int = 200) -> Responses:
    """The response of an operation that succeeds."""
    return {status: {"model": what}}


def problems(*codes: str) -> Responses:
    """The responses of an operation that can fail with these codes."""
    responses: Responses = {}
    for status in sorted({PROBLEMS[code].status for code in codes}):
        own = [code for code in codes if PROBLEMS[code].status == status]
        responses[status] = {
            "description": ", ".join(own),
            "content": {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            },
        }
    return responses


def with_problems(description: dict[str, Any]) -> dict[str, Any]:
    """A description with the service's faults, and without those that FastAPI alone would answer.

    Args:
        description: of OpenAPI, as FastAPI makes it; it is changed.
    """
    own = description["components"]["schemas"]
    own["Problem"] = TypeAdapter(Problem).json_schema(mode="serialization")
    own.pop("HTTPValidationError", None)
    own.pop("ValidationError", None)
    for path in description["paths"].values():
        for operation in path.values():
            wrong = operation["responses"].get("422", {})
            if "application/json" in wrong.get("content", {}):
                del operation["responses"]["422"]
    return description
