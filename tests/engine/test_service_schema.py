"""The service does what its OpenAPI description says, on data that it allows and on other data."""

import io
from contextlib import asynccontextmanager

import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.config import (
    ChecksConfig,
    GenerationConfig,
    NotAServerErrorConfig,
    PositiveDataAcceptanceConfig,
    ProjectConfig,
    ProjectsConfig,
    SchemathesisConfig,
)

from engine.client import EmbeddedEngine
from engine.runtime.reload import Reloader
from engine.service.app import application
from engine.service.serving import Served
from engine.settings import Settings
from tests.engine import clips
from tests.engine.seers import seer

KEY = "the-key-of-the-tests"
EXAMPLES = 100


@asynccontextmanager
async def open_engine():
    async with EmbeddedEngine(seer()) as engine:
        yield Served(engine, Reloader(engine, seer))


def pictures():
    def draw(size, kind):
        file = io.BytesIO()
        Image.new("RGB", size, "teal").save(file, kind)
        return file.getvalue()

    side = st.integers(1, 64)
    return st.builds(draw, st.tuples(side, side), st.sampled_from(["JPEG", "PNG", "WebP"]))


schemathesis.openapi.media_type("image/jpeg", pictures())


def videos():
    """Few of them videos, and short: each takes a process."""
    clip = clips.encode(clips.pictures(3, (16, 16)))
    others = st.sampled_from([b"", b"video", b"RIFF\0\0\0\0AVI LIST", b"GIF89a", b"#EXTM3U"])
    return st.integers(0, 9).flatmap(
        lambda chance: others if chance else st.sampled_from([clip, clip[:32]])
    )


schemathesis.openapi.media_type("video/mp4", videos())


def configuration():
    generation = GenerationConfig(
        modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE],
        max_examples=EXAMPLES,
        deterministic=True,
        with_security_parameters=False,
        database="none",
    )
    # Any bytes are a body that the description allows; most are no picture.
    accepted = PositiveDataAcceptanceConfig(
        expected_statuses=["200", "400", "413", "415", "422", "504"]
    )
    # Allowing no time at all is allowed, and then the answer is always too late.
    faults = NotAServerErrorConfig(expected_statuses=["2xx", "4xx", "504"])
    project = ProjectConfig(
        generation=generation,
        checks=ChecksConfig(positive_data_acceptance=accepted, not_a_server_error=faults),
    )
    return SchemathesisConfig(projects=ProjectsConfig(default=project))


schema = schemathesis.openapi.from_asgi(
    "/openapi.json",
    application(open_engine, Settings(engine_api_key=KEY)),
    config=configuration(),
)


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_described(case):
    case.call_and_validate(headers={"Authorization": f"Bearer {KEY}"})
