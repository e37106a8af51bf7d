"""Values that travel as JSON: what all of them have in common. Knows none of them.

Their classes are the one description of what travels: `pydantic.TypeAdapter` writes them, reads
them and tells OpenAPI how they look.
"""

import base64
import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    GetCoreSchemaHandler,
    GetPydanticSchema,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

Item = TypeVar("Item")

LEFT_OUT = Field(exclude_if=lambda value: value is None)
"""Of a field that is not written where it is None."""

MAY_LACK: Mapping[str, bool] = {"may_lack": True}
"""Metadata of a dataclass' field that engines of older versions do not write."""

Count = Annotated[int, Field(ge=0, le=2**53)]
"""A number of things; 2**53 is the largest that every JSON reader tells from its neighbours."""

Series = Annotated[tuple[Item, ...], FailFast()]
"""Any number of things; of a long one with many faults, the first is told."""


def _from_base64(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError("must be a text in base64")
    return base64.b64decode(value, validate=True)


Base64 = Annotated[
    bytes,
    BeforeValidator(_from_base64),
    PlainSerializer(lambda value: base64.b64encode(value).decode("ascii"), return_type=str),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]
"""Bytes; in JSON a text in the standard alphabet of RFC 4648."""


def _to_vector(numbers: list[float]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        vector = np.asarray(numbers, np.float32)
    if not np.isfinite(vector).all():
        raise ValueError("must be finite as 32-bit numbers")
    return vector


def _vector_schema(_source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
    numbers = handler(Annotated[list[float], FailFast()])
    write = core_schema.plain_serializer_function_ser_schema(np.ndarray.tolist)
    return core_schema.no_info_after_validator_function(_to_vector, numbers, serialization=write)


Vector = Annotated[NDArray[np.float32], GetPydanticSchema(_vector_schema)]
"""(d,) float32, finite; in JSON a list of numbers."""


class Record:
    """Base of frozen dataclasses that travel as JSON.

    Their defaults are for those who make them. Whoever reads one misses each field that is not
    there, unless it is `LEFT_OUT` or `MAY_LACK`.
    """

    __slots__ = ()
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        described: Any = handler.resolve_ref_schema(schema)
        own = {field.name: field for field in dataclasses.fields(source)}
        for field in described["schema"]["fields"]:
            wanted = not own[field["name"]].metadata and "serialization_exclude_if" not in field
            if wanted and field["schema"]["type"] == "default":
                field["schema"] = field["schema"]["schema"]
        return schema
