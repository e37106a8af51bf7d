"""What the engine may be asked, over HTTP: queries, headers and bodies, and their descriptions.

Stricter than pydantic is by itself: what the OpenAPI description does not allow is refused. Every
value is checked here first, because what a check here raises is what the caller is told.
"""

import re
from typing import Annotated, Any

from fastapi import Header
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from engine.types import MAX_TOP_K


def _flag(value: object) -> object:
    """Nothing but true and false, where pydantic would take "t", "on" and "1" as well."""
    if value in ("true", "false"):
        return value == "true"
    if isinstance(value, bool):
        return value
    raise ValueError("must be true or false")


def _whole(least: int, most: int, what: str = "a whole number") -> BeforeValidator:
    """Nothing but digits, where pydantic would take "1_0" and "1.0" as well."""

    def check(value: object) -> object:
        # No more digits than any limit has: Python refuses to read thousands of them.
        if isinstance(value, str) and not (
            re.fullmatch("[0-9]{1,20}", value) and least <= int(value) <= most
        ):
            raise ValueError(f"must be {what} from {least} to {most}")
        return value

    return BeforeValidator(check)


Flag = Annotated[bool, BeforeValidator(_flag)]


class Wanted(BaseModel):
    """The query of an analysis."""

    model_config = ConfigDict(extra="forbid")

    top_k: Annotated[int, _whole(1, MAX_TOP_K)] = Field(
        5, ge=1, le=MAX_TOP_K, description="How many people to name for each face."
    )
    embed: Flag = Field(False, description="Whether each face carries its embedding.")
    aligned: Flag = Field(
        False, description="Whether the picture is a face already, cut on the ArcFace template."
    )
    picture: Flag = Field(
        False, description="Whether the photo comes back, as an upright JPEG of at most 1600 px."
    )
    thumbnails: Flag = Field(False, description="Whether matches carry a picture of the person.")


MAX_TIMEOUT_MS = 2**53
"""The largest whole number that every JSON reader tells from its neighbours."""

TimeoutMs = Annotated[
    Annotated[int, Field(ge=0, le=MAX_TIMEOUT_MS)] | SkipJsonSchema[None],
    _whole(0, MAX_TIMEOUT_MS, "a whole number of milliseconds"),
    Header(
        alias="X-Timeout-Ms",
        description="Whole milliseconds that the caller still waits, from the request's headers "
        "on. What would come later is not computed. The service has a maximum of its own.",
    ),
]


def _file(description: str, media_type: str) -> dict[str, Any]:
    schema = {"schema": {"type": "string", "format": "binary"}}
    return {
        "requestBody": {
            "required": True,
            "description": f"{description}; in no form, not in base64, and without a "
            "Content-Encoding.",
            "content": {"application/octet-stream": schema, media_type: schema},
        }
    }


PHOTO_BODY = _file(
    "A JPEG, PNG, WebP, GIF, HEIC or AVIF file as it is, whatever its type", "image/jpeg"
)
CLIP_BODY = _file(
    "An MP4, MOV or WebM file as it is, whatever its type: H.264, HEVC, VP8, VP9, AV1 or MPEG-4 "
    "pictures",
    "video/mp4",
)
