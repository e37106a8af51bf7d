"""The engine over HTTP: one FastAPI application, whoever runs it.

Turns requests into calls of the engine and its answers into JSON. Knows nothing about sockets,
signals or how faces are seen. The event loop only moves bytes: decoding and computing happen in
the engine's threads.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse

from engine import __version__, request_id
from engine.errors import ClipError, EngineError, ImageError, Unavailable
from engine.media.clip import LIMITS as CLIP_LIMITS
from engine.media.image import LIMITS
from engine.runtime.health import OK, Health
from engine.service import problem_json, schemas
from engine.service import responses as answers
from engine.service.auth import KeyGuard, keep_web_pages_out
from engine.service.body import Allowance, read_clip, read_photo, read_photos
from engine.service.cancel_on_disconnect import attended, until
from engine.service.load_shedding import Admission, Way
from engine.service.metrics import CONTENT_TYPE, Metrics
from engine.service.query import CLIP_BODY, FORM_BODY, PHOTO_BODY, TimeoutMs, Wanted
from engine.service.request_counts import Counting
from engine.service.schemas import answer, problems
from engine.service.serving import Served
from engine.settings import Settings
from engine.types import Analysis
from engine.wire import PROBLEMS, info_to_json

_JSON = "application/json"
_ALWAYS = ("invalid_request", "internal")
_LIMITED = ("busy", "unavailable", "deadline_exceeded")
_BODY = ("unsupported_body",)
_FILE = ("file_too_large",)
_IMAGE = tuple(code for code, kind in PROBLEMS.items() if issubclass(kind.error, ImageError))
_CLIP = tuple(code for code, kind in PROBLEMS.items() if issubclass(kind.error, ClipError))
_RELOAD = tuple(code for code, kind in PROBLEMS.items() if kind.status == 409)

Opener = Callable[[], AbstractAsyncContextManager[Served]]
"""Opens what is served: `engine.served.open_engine`."""


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
    app.add_middleware(Admission, ways=service.ways(), guard=service.guard)
    app.add_middleware(Counting, metrics=service.metrics)
    app.add_middleware(request_id.middleware)
    return app


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """The description, without answers that FastAPI alone would give."""
        return schemas.without_validation_errors(super().openapi())


class _Service:
    """The operations, and what they share."""

    def __init__(self, open_engine: Opener, settings: Settings, health: Health) -> None:
        self.metrics = Metrics()
        self._open_engine = open_engine
        self._settings = settings
        self._health = health
        key = settings.api_key
        self._key_guard = None if key is None else KeyGuard(key)
        self.guard = keep_web_pages_out if self._key_guard is None else self._key_guard.check
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
        guards = [Depends(self._key_guard or keep_web_pages_out)]
        refused = ("forbidden",) if self._key_guard is None else ("unauthorized",)
        always = (*_ALWAYS, *refused)

        def add(
            method: str,
            path: str,
            operation: Callable[..., Any],
            responses: schemas.Responses,
            **options: Any,
        ) -> None:
            app.add_api_route(
                path,
                operation,
                methods=[method],
                responses=responses,
                response_class=JSONResponse,
                **options,
            )

        add(
            "POST",
            "/v1/analyze",
            self.analyze,
            answer(schemas.AnalysisSchema) | problems(*always, *_LIMITED, *_BODY, *_IMAGE),
            dependencies=guards,
            openapi_extra=PHOTO_BODY,
        )
        add(
            "POST",
            "/v1/analyze:batch",
            self.analyze_batch,
            answer(schemas.ResultsSchema) | problems(*always, *_LIMITED, *_BODY, *_FILE),
            dependencies=guards,
            openapi_extra=FORM_BODY,
        )
        add(
            "POST",
            "/v1/track",
            self.track,
            answer(schemas.TrackSchema) | problems(*always, *_LIMITED, *_BODY, *_CLIP),
            dependencies=guards,
            openapi_extra=CLIP_BODY,
        )
        add(
            "GET",
            "/v1/info",
            self.info,
            answer(schemas.InfoSchema) | problems(*always),
            dependencies=guards,
        )
        add(
            "GET",
            "/v1/people",
            self.people,
            answer(schemas.PeopleSchema) | problems(*always),
            dependencies=guards,
        )
        add(
            "POST",
            "/v1/reload",
            self.reload,
            answer(schemas.InfoSchema) | problems(*always, "busy", *_RELOAD),
            dependencies=guards,
        )
        add("GET", "/livez", self.livez, answer(schemas.HealthSchema))
        health = schemas.HealthSchema
        add("GET", "/readyz", self.readyz, answer(health) | answer(health, 503))
        text: schemas.Responses = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
        add(
            "GET",
            "/metrics",
            self.prometheus,
            text | problems(*refused),
            dependencies=guards,
        )

    def ways(self) -> dict[str, Way]:
        """Each path that takes pictures; a form whose photos nobody has counted is one photo."""
        photo = Way(lambda: self._open().engine.admit(), self._count_photo)
        clip = Way(lambda: self._open().engine.admit_clip(), self._count_clip)
        return {"/v1/analyze": photo, "/v1/analyze:batch": photo, "/v1/track": clip}

    def _count_photo(self, code: str) -> None:
        self.metrics.photos.labels(code).inc()

    def _count_clip(self, code: str) -> None:
        self.metrics.clips.labels(code).inc()

    # --- The operations ---

    async def analyze(
        self, request: Request, wanted: Annotated[Wanted, Query()], timeout_ms: TimeoutMs = None
    ) -> Response:
        """Find the faces of a photo and whom each resembles."""
        served, deadline = self._open(), self._deadline(timeout_ms)
        with self._allowance.share() as share:
            try:
                async with until(deadline):
                    photo = await read_photo(request, share, LIMITS)
                analysis = await attended(request, self._analysis(served, photo, wanted, deadline))
                # In a thread: a crowd with pictures of whom it resembles is tens of megabytes.
                encoded = await asyncio.to_thread(
                    answers.encode, analysis, thumbnails=wanted.thumbnails
                )
            except EngineError as error:
                self._count_photo(error.code)
                raise
        self._count_photo(OK)
        return Response(encoded, media_type=_JSON)

    async def analyze_batch(
        self, request: Request, wanted: Annotated[Wanted, Query()], timeout_ms: TimeoutMs = None
    ) -> Response:
        """Analyse the photos of a form; each has its own analysis or problem, in order."""
        served, deadline = self._open(), self._deadline(timeout_ms)
        with self._allowance.share() as share:
            try:
                async with until(deadline):
                    photos = await read_photos(request, share, LIMITS)
            except EngineError as error:
                self._count_photo(error.code)
                raise
            results = await attended(request, self._each(served, photos, wanted, deadline))
            encoded = await asyncio.to_thread(
                answers.encode_each, results, thumbnails=wanted.thumbnails
            )
        for result in encoded:
            self._count_photo(result.code if isinstance(result, EngineError) else OK)
        return Response(answers.join(encoded), media_type=_JSON)

    async def track(self, request: Request, timeout_ms: TimeoutMs = None) -> Response:
        """Follow one face through a clip: where it looks and who it is, ten times a second."""
        served, deadline = self._open(), self._deadline(timeout_ms)
        with self._allowance.share() as share:
            try:
                async with until(deadline):
                    clip = await read_clip(request, share, CLIP_LIMITS)
                timeout_s = deadline - asyncio.get_running_loop().time()
                work = served.engine.track(clip, timeout_s=timeout_s)
                track = await attended(request, work)
                encoded = await asyncio.to_thread(answers.encode_track, track)
            except EngineError as error:
                self._count_clip(error.code)
                raise
        self._count_clip(OK)
        return Response(encoded, media_type=_JSON)

    async def info(self) -> Response:
        """Tell what the engine is made of."""
        return JSONResponse(info_to_json(await self._open().engine.info()))

    async def people(self) -> Response:
        """Tell whom the bundle knows, in the order of its class indices."""
        people = await self._open().engine.people()
        # In a thread: a bundle may know a hundred thousand people.
        encoded = await asyncio.to_thread(answers.encode_people, people)
        return Response(encoded, media_type=_JSON)

    async def reload(self) -> Response:
        """Load the bundle anew; if anything is wrong with it, the old one goes on serving."""
        return JSONResponse(info_to_json(await self._open().reloader.reload()))

    async def livez(self) -> Response:
        """Tell that the process lives."""
        return JSONResponse({"status": OK, "checks": {}})

    async def readyz(self) -> Response:
        """Tell whether photos are welcome."""
        checks = self._health.checks()
        well = all(state == OK for state in checks.values())
        return JSONResponse(
            {"status": OK if well else "unavailable", "checks": checks}, 200 if well else 503
        )

    async def prometheus(self) -> Response:
        """Tell Prometheus how it goes."""
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    # --- What they have in common ---

    def _open(self) -> Served:
        if self._served is None:
            raise Unavailable("The engine is being loaded: ask again when /readyz says ok.")
        return self._served

    def _deadline(self, timeout_ms: int | None) -> float:
        """Until when to answer, in the event loop's time."""
        wanted_s = self._settings.engine_timeout_s if timeout_ms is None else timeout_ms / 1000
        timeout_s = min(wanted_s, self._settings.engine_max_timeout_s)
        return asyncio.get_running_loop().time() + timeout_s

    async def _analysis(
        self, served: Served, photo: bytes, wanted: Wanted, deadline: float
    ) -> Analysis:
        return await served.engine.analyze(
            photo,
            top_k=wanted.top_k,
            embed=wanted.embed,
            aligned=wanted.aligned,
            picture=wanted.picture,
            timeout_s=deadline - asyncio.get_running_loop().time(),
        )

    async def _each(
        self,
        served: Served,
        photos: Sequence[bytes | EngineError],
        wanted: Wanted,
        deadline: float,
    ) -> list[Analysis | EngineError]:
        # Two batches keep the device busy; more would only take the queue from everybody else.
        places = asyncio.Semaphore(2 * self._settings.engine_max_batch)

        async def one(photo: bytes | EngineError) -> Analysis | EngineError:
            if isinstance(photo, EngineError):
                return photo
            async with places:
                try:
                    return await self._analysis(served, photo, wanted, deadline)
                except EngineError as error:
                    return error

        return await asyncio.gather(*map(one, photos))
