"""`python -m engine cluster`: the engine on Ray, on this machine or on a cluster that runs.

Turns options into calls and states into sentences. Ray is loaded only when a command needs it, so
that the command line works, and says what is missing, without it.
"""

import importlib.util
import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from rich.console import Console

from engine import controls, settings
from engine.cluster import local_ray
from engine.cluster.plan import Plan, Shape, settle
from engine.errors import ConfigurationError
from engine.settings import AUTO, Settings
from engine.terminal import escape

if TYPE_CHECKING:  # it loads ray
    from engine.cluster.rollout import State

_MISCONFIGURED = 2
_NOT_RUNNING = 1
_POLL_S = 0.2
_CONNECT_TIMEOUT_S = 5.0
_STOP_MARGIN_S = 30.0
_LOG_LINES = 12
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

app = typer.Typer(
    name="cluster",
    help="Run the engine on Ray: several replicas, on this machine or on many.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_console = Console()
_errors = Console(stderr=True)

AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="A Ray cluster that runs, auto for this node's; default: a Ray of its own on this "
        "machine, out of others' reach.",
    ),
]
BundleOption = Annotated[
    str | None,
    typer.Option("--bundle", metavar="NAME|PATH", help="Whom to know. Default: ENGINE_BUNDLE."),
]
SurgeOption = Annotated[
    int,
    typer.Option(
        min=0,
        max=100,
        help="Per cent of replicas that a rolling update adds before it takes old ones away, "
        "rounded up; 0 where the cluster has no room.",
    ),
]
TimeoutOption = Annotated[
    float,
    typer.Option("--timeout", min=1, help="Seconds after which what was there is put back."),
]


@app.command()
def up(
    address: AddressOption = None,
    bundle: BundleOption = None,
    replicas: Annotated[int, typer.Option(min=1, help="How many there always are.")] = 1,
    max_replicas: Annotated[
        int | None, typer.Option(min=1, help="How many there are under load; default: --replicas.")
    ] = None,
    cpus: Annotated[float, typer.Option(help="Cores of each replica.")] = 1,
    gpus: Annotated[
        float, typer.Option(help="GPU of each replica: 1, or a share such as 0.5.")
    ] = 0,
    surge: SurgeOption = 25,
    host: Annotated[
        str | None,
        typer.Option(
            help="Address that Ray's proxies listen on. Default: ENGINE_HOST, and 0.0.0.0 with "
            "--address."
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Default: ENGINE_PORT.")
    ] = None,
    block: Annotated[
        bool, typer.Option("--block", help="Stay until a signal, then drain and stop.")
    ] = False,
    timeout_s: TimeoutOption = 600,
) -> None:
    """Serve, or bring what serves already to other options, without an error for its users.

    Again with the same options it changes nothing; a bundle that was built anew is for rollout.
    """
    _need_ray()
    chosen = _settings()
    # A cluster's nodes are reached from elsewhere.
    host = host or (chosen.engine_host if address is None else "0.0.0.0")  # noqa: S104
    port = port or chosen.engine_port
    shape = _shape(
        bundle=bundle,
        min_replicas=replicas,
        max_replicas=max_replicas or replicas,
        cpus=cpus,
        gpus=gpus,
        surge_percent=surge,
        public=host not in _LOOPBACK,
    )
    try:
        plan = Plan.of(shape, chosen)
    except ConfigurationError as error:
        _fail(error.message)
    head = None if address else local_ray.find()
    if block and (address or head):
        _fail("--block is for starting a Ray on this machine, and one runs already.")
    if address is not None:
        _connect(address)
        _serve_http(host, port, chosen.engine_max_timeout_s, every_node=True)
        _deploy(plan.after(_present()), timeout_s)
        return
    if shape.public and chosen.api_key is None:
        _fail(f"Whoever reaches {host} could use it: set ENGINE_API_KEY.")
    if head is not None:
        local_ray.connect(head)
        _deploy(plan.after(_present()), timeout_s)
        _say(f"It answers at {head.url}")
    elif block:
        _hold(plan, host, port, timeout_s)
    else:
        _detach(shape, host, port, timeout_s)


@app.command()
def rollout(
    bundle: Annotated[
        str, typer.Option("--bundle", metavar="NAME|PATH", help="Whom to know from now on.")
    ],
    address: AddressOption = None,
    surge: Annotated[
        int | None, typer.Option(min=0, max=100, help="As with up; default: as it was.")
    ] = None,
    timeout_s: TimeoutOption = 600,
) -> None:
    """Bring every replica to another bundle, or to a new one of the same name."""
    _need_ray()
    _reach(address)
    plan = _present()
    if plan is None:
        _fail("No engine answers on this cluster: see `python -m engine cluster status`.")
    if bundle == AUTO:
        bundle = settle(bundle, _settings())
    _deploy(plan.with_bundle(bundle, surge_percent=surge), timeout_s)


@app.command()
def status(
    address: AddressOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Tell what serves, and how many; exits 0 when all is well and 1 when not."""
    _need_ray()
    head = None if address else local_ray.find()
    if address is None and head is None:
        if as_json:
            typer.echo(json.dumps({"status": "NOT_STARTED", "replicas": {}, "nodes": 0}))
        else:
            _say("No cluster runs on this machine: `python -m engine cluster up` starts one.")
        raise typer.Exit(_NOT_RUNNING)
    _reach(address)
    import ray

    from engine.cluster.rollout import state

    _hush()
    now = state()
    nodes = sum(bool(node["Alive"]) for node in ray.nodes())  # type: ignore[no-untyped-call]
    if as_json:
        record = {
            "status": now.status,
            "message": now.message,
            "replicas": now.replicas,
            "shape": None if now.plan is None else now.plan.shape.model_dump(),
            "bundle": None if now.plan is None else now.plan.told["engine_bundle"],
            "nodes": nodes,
            "url": None if head is None else head.url,
        }
        typer.echo(controls.escape(json.dumps(record, ensure_ascii=False)))
    else:
        _say(f"{_sentence(now)}, {nodes} {'node' if nodes == 1 else 'nodes'}")
        if head is not None:
            _say(f"It answers at {head.url}")
    raise typer.Exit(0 if now.status == "RUNNING" else _NOT_RUNNING)


@app.command()
def down(address: AddressOption = None) -> None:
    """Take nothing new, answer what was accepted, stop; a running Ray itself goes on."""
    _need_ray()
    if address is not None:
        _connect(address)
        from engine.cluster.rollout import delete

        delete()
        _say("The engines are gone; Ray runs on.")
        return
    head = local_ray.find()
    if head is None:
        _say("No cluster runs on this machine.")
        return
    chosen = _settings()
    drain_s = chosen.engine_max_timeout_s + chosen.engine_stop_timeout_s
    with _console.status("Draining"):
        stopped = local_ray.stop(head, timeout_s=drain_s + _STOP_MARGIN_S)
    if not stopped:
        log = local_ray.FOLDER / "log"
        _fail(f"Process {head.pid} does not stop: see {log}, then end it by its number.")
    _say("The cluster is stopped.")


def _hold(plan: Plan, host: str, port: int, timeout_s: float) -> None:
    """Be the process that the local Ray lives in."""
    stop = threading.Event()
    try:
        with local_ray.held(f"http://{host}:{port}", _cores(plan.shape)) as head:
            _serve_http(host, port, plan.told["engine_max_timeout_s"], every_node=False)
            _deploy(plan, timeout_s)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: stop.set())
            local_ray.announce(head)
            _say(f"It answers at {head.url}")
            stop.wait()
            _say("Draining")
            from ray import serve

            from engine.cluster.rollout import delete

            delete()
            serve.shutdown()  # type: ignore[no-untyped-call]
    except ConfigurationError as error:
        _fail(error.message)


def _detach(shape: Shape, host: str, port: int, timeout_s: float) -> None:
    """Start that process and wait until it serves."""
    local_ray.FOLDER.mkdir(parents=True, exist_ok=True)
    options: dict[str, object] = {
        "--replicas": shape.min_replicas,
        "--max-replicas": shape.max_replicas,
        "--cpus": shape.cpus,
        "--gpus": shape.gpus,
        "--surge": shape.surge_percent,
        "--host": host,
        "--port": port,
        "--timeout": timeout_s,
    }
    if shape.bundle is not None:
        options["--bundle"] = shape.bundle
    words = [str(word) for option in options.items() for word in option]
    log = local_ray.FOLDER / "log"
    with log.open("wb") as file, _console.status("Starting Ray and the engines"):
        child = subprocess.Popen(  # noqa: S603 (this very program)
            [sys.executable, "-m", "engine", "cluster", "up", "--block", *words],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        try:
            while child.poll() is None:
                head = local_ray.find()
                if head is not None and head.pid == child.pid:
                    break
                time.sleep(_POLL_S)
        except KeyboardInterrupt:
            child.terminate()
            child.wait()
            raise
    if child.returncode is not None:
        lines = log.read_text("utf-8", errors="replace").splitlines()
        for line in lines[-_LOG_LINES:]:
            _errors.print(escape(line), highlight=False, soft_wrap=True)
        raise typer.Exit(_MISCONFIGURED)
    assert head is not None
    _say(f"It answers at {head.url}; what happens there is in {log}")


def _cores(shape: Shape) -> int:
    """What the local Ray believes to have: enough for all replicas and those of an update."""
    surge = math.ceil(shape.max_replicas * shape.surge_percent / 100)
    return max(math.ceil(shape.cpus * (shape.max_replicas + surge)), os.cpu_count() or 1)


def _shape(**options: object) -> Shape:
    try:
        return Shape.model_validate(options)
    except ValidationError as error:
        _fail("; ".join(f"{_spelled(problem)}: {problem['msg']}" for problem in error.errors()))


def _spelled(problem: ErrorDetails) -> str:
    """The option that a problem is about."""
    name = str(problem["loc"][0]) if problem["loc"] else "--max-replicas"
    return {"min_replicas": "--replicas", "surge_percent": "--surge"}.get(
        name, "--" + name.lstrip("-").replace("_", "-")
    )


def _deploy(plan: Plan, timeout_s: float) -> None:
    from engine.cluster.rollout import deploy

    try:
        with _console.status("Deploying") as line:
            deploy(plan, timeout_s=timeout_s, told=lambda now: line.update(_sentence(now)))
    except ConfigurationError as error:
        _fail(error.message)
    _say(f"Every replica serves {plan.told['engine_bundle']}.")


def _present() -> Plan | None:
    """What runs on the cluster."""
    from engine.cluster.rollout import state

    _hush()
    return state().plan


def _sentence(now: "State") -> str:
    counts = ", ".join(f"{count} {name.lower()}" for name, count in now.replicas.items() if count)
    bundle = "" if now.plan is None else f", bundle {now.plan.told['engine_bundle']}"
    return f"{now.status.lower()}: {counts or now.message}{bundle}"


def _reach(address: str | None) -> None:
    """Become a driver of the cluster meant."""
    if address is not None:
        _connect(address)
        return
    head = local_ray.find()
    if head is None:
        _fail("No cluster runs on this machine: `python -m engine cluster up` starts one.")
    local_ray.connect(head)


def _connect(address: str) -> None:
    """Become a driver of a cluster that runs already."""
    if address != "auto":
        _require_listener(address)
    for name, value in local_ray.QUIET.items():
        os.environ.setdefault(name, value)
    import ray
    from ray.exceptions import RayError

    try:
        ray.init(address, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        _fail(f"No Ray cluster lets this machine in at {address}: {error}")


def _require_listener(address: str) -> None:
    """Fail at once: Ray itself would try for a quarter of an hour."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT_S).close()
    except ValueError:
        _fail(f"{address!r} is no address: give HOST:PORT, or auto.")
    except (OSError, OverflowError) as error:
        _fail(f"No Ray cluster answers at {address}: {error}.")


def _serve_http(host: str, port: int, limit_s: float, *, every_node: bool) -> None:
    from ray import serve
    from ray.exceptions import RayError

    _hush()
    try:
        serve.start(
            proxy_location="EveryNode" if every_node else "HeadOnly",
            # Who does not say how long they wait: Ray's own queue has no deadline.
            http_options={"host": host, "port": port, "request_timeout_s": limit_s},
        )
    except RayError as error:
        reason = str(error).strip().splitlines()[-1]
        _fail(f"Ray does not listen on {host}:{port}: {reason}")


def _hush() -> None:
    """Keep Ray Serve's progress to itself: ours is shown. It speaks from its import on."""
    import ray.serve

    logging.getLogger(ray.serve.__name__).setLevel(logging.WARNING)


def _settings() -> Settings:
    try:
        return settings.load(os.environ)
    except ConfigurationError as error:
        _fail(error.message)


def _need_ray() -> None:
    if importlib.util.find_spec("ray") is None:
        _fail("Ray is not installed: `uv sync --extra cluster` (or pip install 'ray[serve]').")


def _say(message: str) -> None:
    _console.print(escape(message), highlight=False, soft_wrap=True)


def _fail(message: str) -> NoReturn:
    _errors.print(f"[red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(_MISCONFIGURED)
