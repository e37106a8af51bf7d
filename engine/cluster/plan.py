"""What is to run on Ray: how many replicas, what each one gets, what each one is told.

Knows no Ray, so that commands can be checked where there is none.
"""

import secrets
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engine.errors import ConfigurationError
from engine.settings import AUTO, Settings

BATCHES_PER_REPLICA = 4
"""Of what a replica has, one batch is on the device, one at its door, and the rest being decoded:
less starves the device between batches, more only waits where the router cannot see it."""

# Each node's own: keys never cross Ray, and paths differ from machine to machine.
_OF_EACH_NODE = (
    "engine_api_key",
    "engine_api_key_file",
    "engine_host",
    "engine_port",
    "engine_socket",
    "face_weights_dir",
)


class Shape(BaseModel):
    """How many replicas there are and what each one gets: a deployment's `args` in YAML."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str | None = Field(None, min_length=1, description="None is ENGINE_BUNDLE.")
    min_replicas: int = Field(1, ge=1)
    max_replicas: int = Field(1, ge=1)
    cpus: float = Field(1, gt=0, description="Cores of each replica.")
    gpus: float = Field(
        0, ge=0, le=1, description="Share of a GPU of each; Ray does not divide its memory."
    )
    surge_percent: int = Field(
        25,
        ge=0,
        le=100,
        description="Replicas that a rolling update adds before it takes old ones away, rounded "
        "up; 0 takes them away first, for clusters without room.",
    )
    public: bool = Field(True, description="Whether others reach it, so that it wants a key.")

    @model_validator(mode="after")
    def _ordered(self) -> "Shape":
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas is {self.max_replicas}, less than min_replicas, {self.min_replicas}"
            )
        return self


@dataclass(frozen=True, slots=True)
class Plan:
    """One version of the deployment.

    Attributes:
        shape: how many replicas, and what each one gets.
        told: settings that win over a replica's own environment.
        version: replicas of the same version need not be replaced.
    """

    shape: Shape
    told: dict[str, Any]
    version: str

    @classmethod
    def of(cls, shape: Shape, settings: Settings) -> "Plan":
        """A new version.

        Raises:
            ConfigurationError: the settings contradict the shape.
        """
        device = "cuda" if shape.gpus else "cpu"
        if settings.engine_device not in ("auto", device):
            raise ConfigurationError(
                f"ENGINE_DEVICE is {settings.engine_device}, and replicas with {shape.gpus:g} GPUs "
                f"run on {device}: change the one or the other."
            )
        told = settings.model_dump(exclude=set(_OF_EACH_NODE))
        told |= {
            "engine_device": device,
            # A bundle that changes on one machine's disk must not part the replicas.
            "engine_watch_s": 0,
            # The router never gives a replica more than its share, so it is never the busy one.
            "engine_queue": max(
                settings.engine_queue, BATCHES_PER_REPLICA * settings.engine_max_batch
            ),
        }
        if not settings.engine_threads:
            told["engine_threads"] = max(1, int(shape.cpus))  # replicas share a machine's cores
        told["engine_bundle"] = settle(shape.bundle or settings.engine_bundle, settings)
        return cls(shape, told, secrets.token_hex(8))

    def after(self, before: "Plan | None") -> "Plan":
        """The same, of the earlier version where only the number of replicas differs."""
        if before is None or self.told != before.told:
            return self
        same = all(
            getattr(self.shape, name) == getattr(before.shape, name)
            for name in ("cpus", "gpus", "public")
        )
        return replace(self, version=before.version) if same else self

    def with_bundle(self, bundle: str, *, surge_percent: int | None = None) -> "Plan":
        """A new version that differs in its bundle, and maybe in how it is rolled out."""
        changes: dict[str, Any] = {"bundle": bundle}
        if surge_percent is not None:
            changes["surge_percent"] = surge_percent
        return replace(
            self,
            shape=self.shape.model_copy(update=changes),
            told={**self.told, "engine_bundle": bundle},
            version=secrets.token_hex(8),
        )


def settle(bundle: str, settings: Settings) -> str:
    """A bundle's name or path, where "auto" is decided here.

    Each replica would decide by what its own node has, and their vectors would not be comparable.
    """
    if bundle != AUTO:
        return bundle
    from engine.default_bundle import choose  # it loads torch

    return choose(settings.model_copy(update={"engine_bundle": AUTO})).name
