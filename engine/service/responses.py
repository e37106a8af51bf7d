"""Answers as bytes of JSON, and never more of them than a client reads.

Written face by face: one call that wrote tens of megabytes would hold up every thread meanwhile.
Knows nothing about HTTP.
"""

import json
from collections.abc import Sequence
from dataclasses import replace

from engine.errors import EngineError, InvalidRequest
from engine.types import Analysis, Person, Track
from engine.wire import (
    ANSWER_MAX_BYTES,
    analysis_to_json,
    face_to_json,
    person_to_json,
    problem,
    track_to_json,
)


def encode(analysis: Analysis, *, thumbnails: bool, room_bytes: int = ANSWER_MAX_BYTES) -> bytes:
    """One analysis.

    Raises:
        InvalidRequest: it would have more than `room_bytes`.
    """
    # Without faces it ends in "[]}".
    start = _json(analysis_to_json(replace(analysis, faces=())))[:-2]
    faces = []
    left_bytes = room_bytes - len(start) - len(b"]}")
    for face in analysis.faces:
        faces.append(_json(face_to_json(face, thumbnails=thumbnails)))
        left_bytes -= len(faces[-1]) + 1
        if left_bytes < 0:
            raise InvalidRequest(
                f"The answer would have more than the {ANSWER_MAX_BYTES / 2**20:g} MB that are "
                "sent: ask for fewer people (top_k), for less about them, or send fewer photos "
                "together."
            )
    return start + b",".join(faces) + b"]}"


def encode_track(track: Track) -> bytes:
    """One track; it names nobody and has a hundred faces or two, so that it always fits."""
    return _json(track_to_json(track))


def encode_people(people: Sequence[Person], *, room_bytes: int = ANSWER_MAX_BYTES) -> bytes:
    """Whom a bundle knows.

    Raises:
        InvalidRequest: it would have more than `room_bytes`.
    """
    parts = []
    left_bytes = room_bytes - len(b'{"people":[]}')
    for person in people:
        parts.append(_json(person_to_json(person)))
        left_bytes -= len(parts[-1]) + 1
        if left_bytes < 0:
            raise InvalidRequest(
                f"The bundle knows {len(people)} people, and the answer would have more than the "
                f"{ANSWER_MAX_BYTES / 2**20:g} MB that are sent: say less about each of them."
            )
    return b'{"people":[' + b",".join(parts) + b"]}"


def encode_each(
    results: Sequence[Analysis | EngineError],
    *,
    thumbnails: bool,
    room_bytes: int = ANSWER_MAX_BYTES,
) -> list[bytes | EngineError]:
    """The analyses of a form's photos; those that do not fit in with the ones before are faults."""
    encoded: list[bytes | EngineError] = []
    for result in results:
        if isinstance(result, EngineError):
            encoded.append(result)
            continue
        try:
            answer = encode(result, thumbnails=thumbnails, room_bytes=room_bytes)
        except InvalidRequest as error:
            encoded.append(error)
        else:
            encoded.append(answer)
            room_bytes -= len(answer)
    return encoded


def join(encoded: Sequence[bytes | EngineError]) -> bytes:
    """The answer to a form, of what `encode_each` made."""
    results = (
        _json({"error": problem(result)}) if isinstance(result, EngineError) else result
        for result in encoded
    )
    return b'{"results":[' + b",".join(results) + b"]}"


def _json(record: object) -> bytes:
    return json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(
        "utf-8"
    )
