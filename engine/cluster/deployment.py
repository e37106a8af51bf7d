"""The service as a Ray Serve deployment: the same application in every replica.

Ray starts and replaces replicas, spreads requests over them, adds and takes away with the load;
`run/serve.yaml` says how many there are, what each one gets and which bundle they serve. Batches
are formed inside each replica, by the same batcher as everywhere: `serve.batch` forms them while
the last one still runs, and they stay small. Needs ray (`face-matcher[cluster]`); knows nothing
about faces, nor about who starts Ray.
"""

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import ray
from ray import serve
from ray.serve._private import replica
from ray.serve._private.constants import RAY_SERVE_PROXY_USE_GRPC, SERVE_LOGGER_NAME
from ray.serve.config import BackpressureConfig, RequestRouterConfig
from starlette.types import ASGIApp

from engine.cluster.replica_settings import BATCHES_PER_REPLICA, replica_settings
from engine.errors import ConfigurationError
from engine.request import Analyzer
from engine.runtime.health import OK, Health
from engine.service import app
from engine.service.serving import Served, build_rehearsed, open_engine
from engine.settings import Settings

NAME = "engine"
"""Of the application and its one deployment."""

_BUSY_S = 1.0

Build = Callable[[Settings], Analyzer]
"""Makes what sees faces, in the replica."""


class Replica:
    """One engine behind Ray's proxies.

    Args:
        build: makes what sees faces.

    Raises:
        ConfigurationError: the settings or the bundle are not as they should be, or no key is set.
    """

    async def __init__(self, build: Build) -> None:  # type: ignore[misc]  # Ray awaits it
        _close_open_port()
        _log_where_ray_does()
        self._build = build
        self._health = Health()
        # Ray passes it to `reconfigure` as well, but only when the application has started.
        self._wanted: object = serve.get_replica_context()._deployment_config.user_config
        self._loaded: object = None
        self._settings = self._settings_wanted()
        # Not in the application's lifespan, of whose faults Ray tells nothing but that there are.
        self._opened = AsyncExitStack()
        self._served = await self._opened.enter_async_context(
            open_engine(self._settings, self._build_wanted)
        )

    def __serve_build_asgi_app__(self) -> ASGIApp:
        # Ray calls it by this name, in the replica, once this class is made.
        return app.application(self._serve, self._settings, health=self._health)

    async def check_health(self) -> None:
        """What Ray asks every few seconds; three faults in a row, and it starts another replica.

        Raises:
            RuntimeError: the replica is not ready, by the same checks as /readyz.
        """
        wrong = {name: state for name, state in self._health.checks().items() if state != OK}
        if wrong:
            raise RuntimeError(f"Not ready: {wrong}")

    async def reconfigure(self, user_config: object) -> None:
        """What Ray calls when `user_config` changes; photos are answered meanwhile.

        It never raises: Ray stops a replica that does, and starts one that fails as well. What is
        wrong with a bundle is logged, and the old one serves on.
        """
        self._wanted = user_config
        if self._wanted != self._loaded:
            await self._served.reloader.on_signal()

    def _build_wanted(self, _settings: Settings) -> Analyzer:
        wanted = self._wanted
        if wanted == self._loaded:  # by POST /v1/reload, which reaches one replica of many
            raise ConfigurationError(
                "This is one of several engines: change `bundle` or `revision` of user_config in "
                "the Serve configuration, and run `serve deploy`."
            )
        analyzer = self._build(self._settings_wanted())
        self._loaded = wanted
        return analyzer

    def _settings_wanted(self) -> Settings:
        context = ray.get_runtime_context()
        resources = context.get_assigned_resources()  # type: ignore[no-untyped-call]
        return replica_settings(os.environ, resources, self._wanted)

    @asynccontextmanager
    async def _serve(self) -> AsyncIterator[Served]:
        async with self._opened:
            yield self._served


def application(arguments: dict[str, Any]) -> serve.Application:
    """What Ray is to run: `import_path` in the Serve configuration.

    Raises:
        ConfigurationError: `args` says something, or the settings of this process are wrong.
    """
    if arguments:
        raise ConfigurationError(
            f"args has {', '.join(arguments)}: run/serve.yaml shows where these are said now, the "
            "bundle in user_config and the rest beside it."
        )
    return bind()


def bind(build: Build = build_rehearsed) -> serve.Application:
    """The same, of what makes what sees faces."""
    settings = Settings.read()
    ongoing = BATCHES_PER_REPLICA * settings.engine_max_batch
    deployment: Any = serve.deployment(
        serve.ingress()(Replica),
        name=NAME,
        max_ongoing_requests=ongoing,
        # At each proxy. What one replica would have in hand waits at most about as long again;
        # whoever comes then is told at once.
        max_queued_requests=ongoing,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=_BUSY_S),
        # A replica has room again after each batch, tens of milliseconds: Ray's default, up to
        # half a second, would leave it waiting.
        request_router_config=RequestRouterConfig.model_validate(
            {"initial_backoff_s": 0.01, "backoff_multiplier": 1.5, "max_backoff_s": 0.05}
        ),
        health_check_period_s=5,
        health_check_timeout_s=10,
        # Whatever was accepted is answered: its deadline is the last that anybody waits for.
        graceful_shutdown_wait_loop_s=0.2,
        graceful_shutdown_timeout_s=settings.engine_max_timeout_s + settings.engine_stop_timeout_s,
        max_constructor_retry_count=2,
    )
    bound: serve.Application = deployment.bind(build)
    return bound


def _log_where_ray_does() -> None:
    """Write the engine's log lines into this replica's log, and not only on standard error."""
    own = logging.getLogger("engine")
    own.setLevel(logging.INFO)
    own.handlers = logging.getLogger(SERVE_LOGGER_NAME).handlers


def _close_open_port() -> None:
    """Keep this process from listening for other deployments, of which there are none.

    Ray opens a gRPC port for them on all interfaces, and unpickles what comes, from anybody: its
    token does not guard it. Its proxies do not use it, unless RAY_SERVE_PROXY_USE_GRPC says so.
    """
    if not RAY_SERVE_PROXY_USE_GRPC:
        vars(replica)["add_port_to_grpc_server"] = lambda server, address: 0  # noqa: ARG005
