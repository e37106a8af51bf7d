"""How the service's JSON looks, for its OpenAPI description. Knows nothing about how it is made.

The values themselves are made by `engine.wire`; the tests hold one to the other.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.decision import LEVELS
from engine.types import Verdict
from engine.wire import PROBLEMS

Coordinates = Annotated[list[float], Field(min_length=2, max_length=2)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class MatchSchema(_Part):
    """One person of the bundle, compared with one face."""

    name: str
    probability: float = Field(description="Share of belief over the bundle's people, 0 to 1.")
    similarity: float = Field(description="Cosine, -1 to 1.")
    percentile: float = Field(ge=0, le=100, description="Of strangers, how many are less similar.")
    verdict: Verdict
    thumbnail: str = Field("", description="A small JPEG in base64, when asked for and there.")


class QualitySchema(_Part):
    """How usable a face is."""

    size_px: float
    blur: float = Field(description="0 is sharp, 1 is nothing but blur.")
    exposure: float = Field(description="0 is black, 1 is white.")
    shadow: float = Field(description="How much darker one half is than the other, 0 to 1.")


class PoseSchema(_Part):
    """Where a face looks, as proxies; null where that cannot be told."""

    yaw: float | None
    pitch: float | None


class FaceSchema(_Part):
    """One face of a photo, in pixels of the upright original, turned as its analysis says."""

    box: list[float] = Field(
        min_length=4, max_length=4, description="x1, y1, x2, y2, within the photo."
    )
    landmarks: list[Coordinates] = Field(
        min_length=5,
        max_length=5,
        description="Left eye, right eye, nose, left and right corner of the mouth, as seen.",
    )
    probability: float
    quality: QualitySchema
    pose: PoseSchema
    matches: list[MatchSchema]
    embedding: list[float] = Field([], description="A unit vector, when asked for.")
    pattern: str = Field(
        "",
        description="Its pattern of light and dark in base64, 45 rows of 45 int8, with the "
        "embedding: by it copies of a shot are told.",
    )


class AnalysisSchema(_Part):
    """What was seen in one photo."""

    bundle: str = Field(description="Which one answered: its name and the start of its sha256.")
    width_px: int = Field(description="Of the upright photo, after it was turned.")
    height_px: int
    queue_s: float
    compute_s: float
    turned: Literal[0, 90, 180, 270] = Field(
        0,
        description="Degrees clockwise by which the upright photo was turned, because faces show "
        "only so; boxes and landmarks are in pixels of the turned photo.",
    )
    picture: str = Field("", description="The photo as a JPEG in base64, when asked for.")
    faces: list[FaceSchema] = Field(description="Largest first.")


class FrameSchema(_Part):
    """One moment of a clip."""

    time_s: float = Field(description="Since the clip's first frame.")
    face: FaceSchema | None = Field(
        description="The face that is followed, in pixels of the upright clip; null where it is "
        "not seen. Every second frame's has its embedding."
    )
    others: int = Field(description="Further faces, of those at least half as large.")
    turned_deg: list[float] | None = Field(
        description="Degrees of yaw and pitch that the head surely turned since three frames "
        "before, told by depth: about 0 of a flat picture. Null where the face is not seen in both."
    )


class TrackSchema(_Part):
    """What was seen in a clip: one face, about ten times a second."""

    bundle: str = Field(description="Which one answered: its name and the start of its sha256.")
    width_px: int
    height_px: int
    duration_s: float
    queue_s: float
    compute_s: float
    frames: list[FrameSchema]


class ProblemSchema(_Part):
    """A fault (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str = Field(description="What happened and what to do, in English.")
    code: str = Field(json_schema_extra={"enum": [*sorted(PROBLEMS)]})
    retry_after_s: float = Field(0, description="When to come back, where it is known.")


class FailureSchema(_Part):
    """A photo of a form that could not be answered."""

    error: ProblemSchema


class ResultsSchema(_Part):
    """One result for each photo of a form, in order."""

    results: list[AnalysisSchema | FailureSchema]


class LoginPointSchema(_Part):
    """A way of asking whether it is the person, and what it is worth."""

    level: str = Field(json_schema_extra={"enum": [*LEVELS]})
    templates: int
    probes: int
    threshold: float = Field(description="Lowest cosine of the templates' and the probes' mean.")
    template_floor: float = Field(description="Lowest cosine of each template; -1: no veto.")
    turn_threshold: float | None = Field(description="Lowest cosine of each turn; null: not asked.")
    fmr: float = Field(description="Of strangers, with all attempts that they have.")
    fmr_upper_95: float
    fnmr: float = Field(description="Of single attempts.")
    people: int
    impostor_trials: int
    genuine_trials: int


class LoginSchema(_Part):
    """How it is decided whether two sets of embeddings are one person's."""

    embedder: str
    weights_sha256: str
    preprocessing: int
    captures: int = Field(description="How many enrolment captures are advised.")
    probes: int = Field(description="How many photos a check by photo should ask for.")
    attempts: int = Field(description="How many a stranger has, in the points' FMR.")
    agreement: float = Field(description="Lowest cosine of any two enrolment captures.")
    source: str
    points: list[LoginPointSchema]
    centre: list[float] = Field(description="The mean face, from which cosines are taken.")


class InfoSchema(_Part):
    """What the engine is made of."""

    version: str
    bundle: str
    embedder: str
    people: int
    device: str
    login: LoginSchema | None


class PersonSchema(_Part):
    """One person whom the bundle knows."""

    name: str
    country: str = Field(
        pattern="^([A-Z]{2})?$", description="ISO 3166-1 alpha-2, empty where none is told."
    )
    known_for: dict[str, str] = Field(description="A few words by language, as es and en.")


class PeopleSchema(_Part):
    """Whom the bundle knows."""

    people: list[PersonSchema] = Field(description="In the order of the class indices.")


class HealthSchema(_Part):
    """Whether the service is well."""

    status: str = Field(json_schema_extra={"enum": ["ok", "unavailable"]})
    checks: dict[str, str] = Field(description='By name: "ok", or what is the matter.')


Responses = dict[int | str, dict[str, Any]]


def answer(schema: type[BaseModel], status: int = 200) -> Responses:
    """The response of an operation that succeeds."""
    return {status: {"model": schema}}


def problems(*codes: str) -> Responses:
    """The responses of an operation that can fail with these codes."""
    responses: Responses = {}
    for status in sorted({PROBLEMS[code].status for code in codes}):
        own = [code for code in codes if PROBLEMS[code].status == status]
        responses[status] = {
            "description": ", ".join(own),
            "content": {
                "application/problem+json": {
                    "schema": {"$ref": "#/components/schemas/ProblemSchema"}
                }
            },
        }
    return responses


def without_validation_errors(description: dict[str, Any]) -> dict[str, Any]:
    """A description without the answers to wrong values that FastAPI adds of its own.

    Args:
        description: of OpenAPI, as FastAPI makes it; it is changed.
    """
    own = description["components"]["schemas"]
    own.pop("HTTPValidationError", None)
    own.pop("ValidationError", None)
    for path in description["paths"].values():
        for operation in path.values():
            wrong = operation["responses"].get("422", {})
            if "application/json" in wrong.get("content", {}):
                del operation["responses"]["422"]
    return description
