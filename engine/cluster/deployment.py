"""The service as a Ray Serve deployment: the same application in every replica.

Ray starts and replaces replicas, spreads requests over them, adds and takes away with the load, and
rolls from one bundle to the next. Batches are formed inside each replica, by the same batcher as
everywhere: `serve.batch` forms them while the last one still runs, and they stay small. Needs ray
(`face-matcher[cluster]`); knows nothing about faces, nor about who starts Ray.

Replicas read their environment, as the service does: secrets never cross Ray. What the plan says
wins over it.
"""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

from ray import serve
from ray.serve._private import replica
from ray.serve._private.constants import RAY_SERVE_PROXY_USE_GRPC
from ray.serve.config import AutoscalingConfig, BackpressureConfig, RequestRouterConfig
from starlette.types import ASGIApp

from engine import settings as table
from engine.cluster.plan import BATCHES_PER_REPLICA, Plan, Shape
from engine.errors import ConfigurationError
from engine.request import Analyzer
from engine.runtime.health import OK, Health
from engine.runtime.reload import Reloader
from engine.service import app
from engine.service.serving import Served, build_rehearsed, open_engine
from engine.settings import Settings

NAME = "engine"
"""Of the application and its one deployment."""

_BATCHES_WANTED = 2
_BUSY_S = 1.0

Build = Callable[[Settings], Analyzer]
"""Makes what sees faces, in the replica."""


class Replica:
    """One engine behind Ray's proxies.

    Args:
        plan: what it is one of; its settings win over the replica's own environment.
        build: makes what sees faces.

    Raises:
        ConfigurationError: the settings are wrong, or it would serve strangers without a key.
    """

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self, plan: Plan, build: Build
    ) -> None:
        _close_back_door()
        self._plan = plan
        self._health = Health()
        own = table.load(os.environ)
        self._settings = Settings.model_validate({**own.model_dump(), **plan.told})
        if plan.shape.public and self._settings.api_key is None:
            raise ConfigurationError(
                "This engine would serve whoever reaches it: set ENGINE_API_KEY in the environment "
                "of every Ray node."
            )
        # Not in the application's lifespan, of whose faults Ray tells nothing but that there are.
        self._opened = AsyncExitStack()
        served = await self._opened.enter_async_context(open_engine(self._settings, build))
        # A reload would change one replica and not the others.
        self._served = Served(served.engine, Reloader(served.engine, _refuse_reload))

    def __serve_build_asgi_app__(self) -> ASGIApp:
        # Ray calls it by this name, in the replica, once this class is made.
        return app.application(self._serve, self._settings, health=self._health)

    @asynccontextmanager
    async def _serve(self) -> AsyncIterator[Served]:
        async with self._opened:
            yield self._served

    async def check_health(self) -> None:
        """What Ray asks every few seconds; three faults in a row, and it starts another replica.

        Raises:
            RuntimeError: the replica is not ready, by the same checks as /readyz.
        """
        wrong = {name: state for name, state in self._health.checks().items() if state != OK}
        if wrong:
            raise RuntimeError(f"Not ready: {wrong}")

    def reconfigure(self, shape: dict[str, Any]) -> None:
        """What Ray calls when only the number of replicas changes."""
        self._plan = replace(self._plan, shape=Shape.model_validate(shape))

    def plan(self) -> Plan:
        """What it is one of."""
        return self._plan


def application(shape: Shape) -> serve.Application:
    """What Ray is to run: `engine.cluster.deployment:application` in a Serve configuration.

    Raises:
        ConfigurationError: the settings of this process are wrong, or contradict the shape.
    """
    return bind(Plan.of(shape, table.load(os.environ)))


def bind(plan: Plan, build: Build = build_rehearsed) -> serve.Application:
    """The same of a plan, and of what makes what sees faces."""
    shape, settings = plan.shape, Settings.model_validate(plan.told)
    ongoing = BATCHES_PER_REPLICA * settings.engine_max_batch
    deployment: Any = serve.deployment(
        serve.ingress()(Replica),
        name=NAME,
        ray_actor_options={"num_cpus": shape.cpus, "num_gpus": shape.gpus},
        max_ongoing_requests=ongoing,
        # At each proxy. What all replicas would have in hand waits at most about as long again;
        # whoever comes then is told at once.
        max_queued_requests=ongoing * shape.max_replicas,
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
        max_surge_percent=shape.surge_percent,
        user_config=shape.model_dump(),
        **_count(shape, settings),
    )
    # Ray draws a version at random, so that going back to what runs would replace it by its like.
    deployment._version = plan.version
    bound: serve.Application = deployment.bind(plan, build)
    return bound


def _count(shape: Shape, settings: Settings) -> dict[str, Any]:
    if shape.min_replicas == shape.max_replicas:
        return {"num_replicas": shape.min_replicas}
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=shape.min_replicas,
            max_replicas=shape.max_replicas,
            target_ongoing_requests=_BATCHES_WANTED * settings.engine_max_batch,
            # Up soon, because starting takes as long again; down late, because load comes back.
            upscale_delay_s=5,
            downscale_delay_s=300,
        )
    }


def _close_back_door() -> None:
    """Keep this process from listening for other deployments, of which there are none.

    Ray opens a gRPC port for them on all interfaces, and unpickles what comes, from anybody: its
    token does not guard it. Its proxies do not use it, unless RAY_SERVE_PROXY_USE_GRPC says so.
    """
    if not RAY_SERVE_PROXY_USE_GRPC:
        vars(replica)["add_port_to_grpc_server"] = lambda server, address: 0  # noqa: ARG005


def _refuse_reload() -> Analyzer:
    raise ConfigurationError(
        "This is one of several engines: change all of them with `python -m engine cluster rollout "
        "--bundle NAME`."
    )
