import pytest

from engine.cluster.replica_settings import BATCHES_PER_REPLICA, replica_settings
from engine.errors import ConfigurationError
from engine.settings import Settings

ENVIRON = {"ENGINE_API_KEY": "a-key-that-nobody-else-knows", "ENGINE_MAX_BATCH": "32"}
ONE_CORE = {"CPU": 1.0}
WANTED = {"bundle": "others"}


def settings(resources: dict[str, float] = ONE_CORE, **environ: str) -> Settings:
    return replica_settings(ENVIRON | environ, resources, WANTED)


def test_replicas_share_a_machine_and_never_reload_by_themselves() -> None:
    chosen = settings({"CPU": 2.5}, ENGINE_BUNDLE="celebrities", ENGINE_WATCH_S="2")
    assert (chosen.engine_bundle, chosen.engine_watch_s) == ("others", 0)
    assert chosen.engine_threads == 2
    assert settings({"CPU": 0.5}).engine_threads == 1
    assert settings({"CPU": 4}, ENGINE_THREADS="3").engine_threads == 3
    assert settings({}).engine_threads == 1


def test_a_replica_has_room_for_all_that_it_may_be_given() -> None:
    assert settings(ENGINE_QUEUE="8").engine_queue == BATCHES_PER_REPLICA * 32
    assert settings(ENGINE_QUEUE="500").engine_queue == 500


def test_the_device_is_what_the_replica_gets() -> None:
    assert settings().engine_device == "cpu"
    assert settings({"CPU": 4, "GPU": 0.5}).engine_device == "cuda"
    assert settings({"GPU": 1}, ENGINE_DEVICE="cuda").engine_device == "cuda"
    with pytest.raises(ConfigurationError, match="ENGINE_DEVICE is cuda"):
        settings(ENGINE_DEVICE="cuda")
    with pytest.raises(ConfigurationError, match="ENGINE_DEVICE is cpu"):
        settings({"GPU": 1}, ENGINE_DEVICE="cpu")


def test_nobody_is_served_without_a_key() -> None:
    with pytest.raises(ConfigurationError, match="ENGINE_API_KEY_FILE"):
        settings(ENGINE_API_KEY="")


@pytest.mark.parametrize("revision", [{}, {"revision": 2}, {"revision": "2026-11-30"}])
def test_any_revision_is_the_same_bundle(revision: dict[str, object]) -> None:
    assert replica_settings(ENVIRON, ONE_CORE, WANTED | revision).engine_bundle == "others"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (None, "user_config"),
        ({}, "bundle"),
        ({"bundle": ""}, "bundle"),
        ({"bundel": "others"}, "bundel"),
        ({"bundle": "others", "replicas": 2}, "replicas"),
        ({"bundle": "auto"}, "auto"),
    ],
)
def test_a_configuration_that_names_no_bundle(wrong: object, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        replica_settings(ENVIRON, ONE_CORE, wrong)
