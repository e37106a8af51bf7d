import pytest
from pydantic import ValidationError

from engine.cluster.plan import BATCHES_PER_REPLICA, Plan, Shape
from engine.errors import ConfigurationError
from engine.settings import Settings

SECRET = "a-key-that-nobody-else-knows"
SETTINGS = Settings(engine_api_key=SECRET, engine_max_batch=32, engine_queue=8)


def test_secrets_and_what_is_each_nodes_own_stay_at_home() -> None:
    plan = Plan.of(Shape(), SETTINGS)
    assert SECRET not in repr(plan)
    assert not {"engine_api_key", "engine_host", "face_weights_dir"} & plan.told.keys()


def test_replicas_share_a_machine_and_never_reload_by_themselves() -> None:
    told = Plan.of(Shape(cpus=2.5, bundle="others"), SETTINGS).told
    assert (told["engine_threads"], told["engine_watch_s"]) == (2, 0)
    assert (told["engine_bundle"], told["engine_device"]) == ("others", "cpu")
    assert told["engine_queue"] >= BATCHES_PER_REPLICA * 32


def test_the_device_is_what_the_replica_gets() -> None:
    assert Plan.of(Shape(gpus=0.5), SETTINGS).told["engine_device"] == "cuda"
    with pytest.raises(ConfigurationError, match="ENGINE_DEVICE is cuda"):
        Plan.of(Shape(), Settings(engine_device="cuda"))


def test_only_another_number_of_replicas_replaces_none() -> None:
    plan = Plan.of(Shape(), SETTINGS)
    more = Plan.of(Shape(max_replicas=4), SETTINGS)
    assert more.version != plan.version
    assert more.after(plan).version == plan.version
    assert more.after(plan).shape == more.shape
    assert more.after(None) == more
    for other in (Shape(cpus=2), Shape(gpus=1), Shape(bundle="others"), Shape(public=False)):
        assert Plan.of(other, SETTINGS).after(plan).version != plan.version


def test_a_bundle_of_the_same_name_is_a_new_version() -> None:
    plan = Plan.of(Shape(bundle="people", max_replicas=3, surge_percent=10), SETTINGS)
    again = plan.with_bundle("people", surge_percent=0)
    assert again.version != plan.version
    assert again.told == plan.told
    assert again.shape == plan.shape.model_copy(update={"surge_percent": 0})


@pytest.mark.parametrize(
    "wrong", [{"min_replicas": 2}, {"gpus": 2}, {"cpus": 0}, {"surge_percent": 101}, {"other": 1}]
)
def test_a_shape_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Shape(**wrong)
