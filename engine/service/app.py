"""The engine over HTTP: one FastAPI application, whoever runs it.

Turns requests into calls of the engine and its answers into JSON. Knows nothing about sockets,
signals or how faces are seen. The event loop only moves bytes: decoding and computing happen in
the engine's threads.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse

from engine import __version__, request_id
from engine.client import EmbeddedEngine
from engine.errors import ClipError, ImageError, Unavailable
from engine.runtime.health import OK, Health
from engine.service import problem_json, schemas
from engine.service.auth import BEARER, KeyGuard, keep_web_pages_out
from engine.service.body import CLIP, PHOTO, Allowance, FileKind, read_file
from engine.service.cancel_on_disconnect import attended, until
from engine.service.load_shedding import Admission
from engine.service.metrics import CONTENT_TYPE, Metrics
from engine.service.query import CLIP_BODY, PHOTO_BODY, TimeoutMs, Wanted
from engine.service.request_counts import Counting
from engine.service.schemas import HealthReport, answer, problems
from engine.service.serving import Served
from engine.settings import Settings
from engine.types import Analysis, EngineInfo, Track
from engine.wire import (
    PROBLEMS,
    PeopleList,
    write_analysis,
    write_info,
    write_people,
    write_track,
)

_JSON = "application/json"
_TIMEOUT_S = 30.0
"""Of a request that does not say how long its caller waits."""
_FILE = ("busy", "unavailable", "deadline_exceeded", "unsupported_body")
_IMAGE = tuple(code for code, kind in PROBLEMS.items() if issubclass(kind.error, ImageError))
_CLIP = tuple(code for code, kind in PROBLEMS.items() if issubclass(kind.error, ClipError))
_RELOAD = tuple(code for code, kind in PROBLEMS.items() if kind.status == 409)

Value = TypeVar("Value")

Opener = Callable[[], AbstractAsyncContextManager[Served]]
"""Opens what is served: `engine.service.serving.open_engine`."""


def application(
    open_engine: Opener, settings: Settings, *, health: Health | None = None
) -> FastAPI:
    """The service.

    Args:
        open_engine: opens the engine; it is open while the application's lifespan lasts.
        settings: what is chosen.
        health: what its health checks look at; None makes one.
    """
    service = _Service(open_engine, settings, health or Health())
    app = _Application(
        title="face-matcher engine",
        description="Photos in, faces and whom they resemble out; clips in, one face's way out.",
        version=__version__,
        lifespan=service.lifespan,
        docs_url=None,  # its page would be fetched from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    service.add_routes(app)
    problem_json.install(app)
    app.add_middleware(Admission, admit=service.admission(), guard=service.guard)
    app.add_middleware(Counting, metrics=service.metrics)
    app.add_middleware(request_id.middleware)
    return app


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """The description, with the service's own faults."""
        return schemas.with_problems(super().openapi())


class _Service:
    """The operations, and what they share."""

    def __init__(self, open_engine: Opener, settings: Settings, health: Health) -> None:
        self.metrics = Metrics()
        self._open_engine = open_engine
        self._settings = settings
        self._health = health
        key = settings.api_key
        self.guard = keep_web_pages_out if key is None else KeyGuard(key)
        self._allowance = Allowance()
        self._served: Served | None = None

    @asynccontextmanager
    async def lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        """Have the engine open."""
        async with self._open_engine() as served:
            served.engine.observe(self.metrics.batch)
            served.reloader.observe(lambda code: self.metrics.reloads.labels(code).inc())
            self.metrics.watch(served.engine)
            self._served, self._health.engine = served, served.engine
            try:
                yield
            finally:
                self._served = self._health.engine = None
                self.metrics.watch(None)

    def add_routes(self, app: FastAPI) -> None:
        """Add every operation."""
        keyless = self._settings.api_key is None
        guards = [] if keyless else [Depends(BEARER)]  # for the description
        guards.append(Depends(self.guard))
        refused = "forbidden" if keyless else "unauthorized"
        always = ("invalid_request", "internal", refused)
        infos = answer(EngineInfo) | problems(*always)
        text: schemas.Responses = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
        analyses = answer(Analysis) | problems(*always, *_FILE, *_IMAGE)
        tracks = answer(Track) | problems(*always, *_FILE, *_CLIP)
        health = answer(HealthReport)

        for method, path, operation, responses, dependencies, body in (
            ("POST", "/v1/analyze", self.analyze, analyses, guards, PHOTO_BODY),
            ("POST", "/v1/track", self.track, tracks, guards, CLIP_BODY),
            ("GET", "/v1/info", self.info, infos, guards, None),
            (
                "GET",
                "/v1/people",
                self.people,
                answer(PeopleList) | problems(*always),
                guards,
                None,
            ),
            (
                "POST",
                "/v1/reload",
                self.reload,
                infos | problems(*always, "busy", *_RELOAD),
                guards,
                None,
            ),
            ("GET", "/livez", self.livez, health, [], None),
            ("GET", "/readyz", self.readyz, health | answer(HealthReport, 503), [], None),
            ("GET", "/metrics", self.prometheus, text | problems(refused), guards, None),
        ):
            app.add_api_route(
                path,
                operation,
                methods=[method],
                responses=responses,
                response_class=JSONResponse,
                dependencies=dependencies,
                openapi_extra=body,
            )

    def admission(self) -> dict[str, Callable[[], None]]:
        """For each path that takes files, what raises when there is no room."""
        return {
            "/v1/analyze": lambda: self._open().engine.admit(),
            "/v1/track": lambda: self._open().engine.admit_clip(),
        }

    # --- The operations ---

    async def analyze(
        self, request: Request, wanted: Annotated[Wanted, Query()], timeout_ms: TimeoutMs = None
    ) -> Response:
        """Find the faces of a photo and whom each resembles."""
        asked = wanted.model_dump(exclude={"thumbnails"})
        return await self._seen(
            request,
            PHOTO,
            timeout_ms,
            lambda engine, photo, deadline_s: engine.analyze(photo, **asked, deadline_s=deadline_s),
            partial(write_analysis, thumbnails=wanted.thumbnails),
        )

    async def track(self, request: Request, timeout_ms: TimeoutMs = None) -> Response:
        """Follow one face through a clip: where it looks and who it is, ten times a second."""
        return await self._seen(
            request,
            CLIP,
            timeout_ms,
            lambda engine, clip, deadline_s: engine.track(clip, deadline_s=deadline_s),
            write_track,
        )

    async def info(self) -> Response:
        """Tell what the engine is made of."""
        return Response(write_info(await self._open().engine.info()), media_type=_JSON)

    async def people(self) -> Response:
        """Tell whom the bundle knows, in the order of its class indices."""
        people = await self._open().engine.people()
        # In a thread: a bundle may know a hundred thousand people.
        return Response(await asyncio.to_thread(write_people, people), media_type=_JSON)

    async def reload(self) -> Response:
        """Load the bundle anew; if anything is wrong with it, the old one goes on serving."""
        return Response(write_info(await self._open().reloader.reload()), media_type=_JSON)

    async def livez(self) -> Response:
        """Tell that the process lives."""
        return _report(HealthReport(status="ok", checks={}))

    async def readyz(self) -> Response:
        """Tell whether photos are welcome."""
        checks = dict(self._health.checks())
        well = all(state == OK for state in checks.values())
        return _report(HealthReport(status="ok" if well else "unavailable", checks=checks))

    async def prometheus(self) -> Response:
        """Tell Prometheus how it goes."""
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    # --- What they have in common ---

    def _open(self) -> Served:
        if self._served is None:
            raise Unavailable("The engine is being loaded: ask again when /readyz says ok.")
        return self._served

    async def _seen(
        self,
        request: Request,
        kind: FileKind,
        timeout_ms: int | None,
        see: Callable[[EmbeddedEngine, bytes, float], Coroutine[Any, Any, Value]],
        write: Callable[[Value], bytes],
    ) -> Response:
        """Read a file, see it and write what was seen, until the caller's time is over."""
        served = self._open()
        wanted_s = _TIMEOUT_S if timeout_ms is None else timeout_ms / 1000
        timeout_s = min(wanted_s, self._settings.engine_max_timeout_s)
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        with self._allowance.share() as take:
            async with until(deadline_s):
                file = await read_file(request, kind, take)
            value = await attended(request, see(served.engine, file, deadline_s))
            # In a thread: a crowd with pictures of whom it resembles is tens of megabytes.
            return Response(await asyncio.to_thread(write, value), media_type=_JSON)


def _report(health: HealthReport) -> Response:
    status = 200 if health.status == "ok" else 503
    return Response(health.model_dump_json(), status, media_type=_JSON)
