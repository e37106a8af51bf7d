"""Bringing a Ray cluster to a plan, without an error for those who use it meanwhile.

New replicas start beside the old ones and take over one batch of replicas at a time; an old one
leaves when it has answered what it had. Where the new ones do not come up, the old plan is put
back. Needs ray, and a driver that is connected to a cluster; knows nothing about where it runs.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus

from engine.cluster.deployment import NAME, Build, bind
from engine.cluster.plan import Plan
from engine.errors import ConfigurationError
from engine.service.serving import build_rehearsed

_POLL_S = 0.1
_ANSWER_S = 30.0
_SHOWN_CHARACTERS = 600
_FAILED = ApplicationStatus.DEPLOY_FAILED.value


@dataclass(frozen=True, slots=True)
class State:
    """What a cluster says of its engines.

    Attributes:
        status: of the application in Ray's words, "RUNNING" when all is well.
        message: why it is not.
        replicas: how many there are in each state, in Ray's words.
        plan: what they are, where one of them answers.
    """

    status: str
    message: str
    replicas: dict[str, int]
    plan: Plan | None


def state(*, ask: bool = True) -> State:
    """Look at the cluster.

    Args:
        ask: whether a replica is asked for its plan.
    """
    found = serve.status().applications.get(NAME)
    if found is None:
        return State("NOT_STARTED", "No engine is deployed on this cluster.", {}, None)
    deployment = found.deployments.get(NAME)
    # Ray gives the states' names, whatever its types say.
    counts: dict[str, int] = {}
    if deployment is not None:
        counts = {str(name): count for name, count in deployment.replica_states.items()}
    message = found.message if deployment is None else deployment.message or found.message
    return State(
        status=str(found.status.value),
        message=message,
        replicas=counts,
        plan=_plan() if ask and counts.get("RUNNING") else None,
    )


def deploy(
    plan: Plan,
    *,
    timeout_s: float = 600.0,
    build: Build = build_rehearsed,
    told: Callable[[State], None] = lambda _: None,
) -> None:
    """Bring the cluster to a plan and return when every replica serves it.

    Args:
        plan: what is wanted.
        timeout_s: after how long the old plan is put back.
        build: makes what sees faces, in each replica.
        told: told of the state while it changes.

    Raises:
        ConfigurationError: it cannot be brought there; what was there before serves on.
    """
    wanted = bind(plan, build)
    before = state().plan
    try:
        _bring(wanted, timeout_s, told)
    except (ConfigurationError, KeyboardInterrupt) as error:
        if before is None:
            serve.delete(NAME)
        else:
            # Ray keeps the old replicas but wants to replace them: it would not replace one that
            # dies by its like.
            _bring(bind(before, build), timeout_s, told)
        if isinstance(error, KeyboardInterrupt) or before is None:
            raise
        raise ConfigurationError(f"{error.message}\nThe old engines serve on.") from None


def delete() -> None:
    """Take the engines away, each when it has answered what it had; nothing happens twice."""
    serve.delete(NAME)


def _bring(wanted: serve.Application, timeout_s: float, told: Callable[[State], None]) -> None:
    target = serve.RunTarget(wanted, name=NAME, route_prefix="/")
    serve.run_many([target], wait_for_applications_running=False)
    give_up = time.monotonic() + timeout_s
    last = None
    while True:
        now = state(ask=False)
        if now != last:
            told(now)
            last = now
        if now.status == ApplicationStatus.RUNNING.value:
            return
        if now.status == _FAILED:
            raise ConfigurationError(f"The new engines do not start: {_reason(now.message)}")
        if time.monotonic() > give_up:
            raise ConfigurationError(
                f"After {timeout_s:.0f} s the new engines do not all run ({_counts(now)}): see "
                "that a node has room for one more, or allow --surge 0. " + _reason(now.message)
            )
        time.sleep(_POLL_S)


def _counts(now: State) -> str:
    return ", ".join(f"{count} {name.lower()}" for name, count in now.replicas.items()) or "none"


def _reason(message: str) -> str:
    """The fault itself, which Ray puts at the end of a traceback."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    faults = [line for line in lines if "Error: " in line or "Exception: " in line]
    return (faults[-1] if faults else " ".join(lines))[-_SHOWN_CHARACTERS:]


def _plan() -> Plan | None:
    handle: Any = serve.get_app_handle(NAME)
    try:
        plan = handle.plan.remote().result(timeout_s=_ANSWER_S)
    except (RayError, RayServeException, TimeoutError):
        return None
    return plan if isinstance(plan, Plan) else None
