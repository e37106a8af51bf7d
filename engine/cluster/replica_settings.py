"""What a replica's settings are: its environment, what Ray gave it, and the bundle it is to serve.

Knows no Ray, so that it can be tested where there is none.
"""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.errors import ConfigurationError
from engine.settings import AUTO, Settings

BATCHES_PER_REPLICA = 4
"""Of what a replica has, one batch is on the device, one waits for it, and the rest is decoded:
less starves the device between batches, more only waits where the router cannot see it."""


class UserConfig(BaseModel):
    """The `user_config` of a Serve configuration.

    Attributes:
        bundle: a name in run/models, or a path.
        revision: another one has a bundle of the same name loaded anew.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str = Field(min_length=1)
    revision: str | int = ""


def replica_settings(
    environ: Mapping[str, str], resources: Mapping[str, float], user_config: object
) -> Settings:
    """The settings of one replica.

    Args:
        environ: of its process; keys never cross Ray, and paths differ from machine to machine.
        resources: what Ray assigned to it: "CPU" in cores, "GPU" in devices or a share of one.
        user_config: what the Serve configuration says.

    Raises:
        ConfigurationError: they are wrong, contradict each other, or have no key.
    """
    own = Settings.read(environ)
    if own.api_key is None:
        raise ConfigurationError(
            "Whoever reaches Ray's proxies could use the engine: set ENGINE_API_KEY or "
            "ENGINE_API_KEY_FILE in the environment of every Ray node."
        )
    device = "cuda" if resources.get("GPU") else "cpu"
    if own.engine_device not in ("auto", device):
        raise ConfigurationError(
            f"ENGINE_DEVICE is {own.engine_device}, and a replica with {resources.get('GPU', 0):g} "
            f"GPUs runs on {device}: change the one or the other."
        )
    return own.model_copy(
        update={
            "engine_device": device,
            "engine_bundle": _bundle(user_config),
            # A bundle that changes on one machine's disk must not part the replicas.
            "engine_watch_s": 0,
            # The router never gives a replica more than its share, so it is never the busy one.
            "engine_queue": max(own.engine_queue, BATCHES_PER_REPLICA * own.engine_max_batch),
            # Replicas share a machine's cores.
            "engine_threads": own.engine_threads or max(1, int(resources.get("CPU", 1))),
        }
    )


def _bundle(user_config: object) -> str:
    try:
        bundle = UserConfig.model_validate(user_config).bundle
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, fault['loc']))} {fault['msg']}" for fault in error.errors()
        ]
        raise ConfigurationError(f"user_config: {'; '.join(problems)}.") from None
    if bundle == AUTO:
        raise ConfigurationError(
            "user_config: name a bundle instead of auto. Each replica would choose by what its own "
            "machine has, and their answers could not be compared."
        )
    return bundle
