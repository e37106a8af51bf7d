"""run/serve.yaml, run/ray.env and run/kuberay.yaml fit the program and each other."""

import copy
from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values

from engine.cluster.proxy import IMPORT_PATH
from engine.cluster.replica_settings import BATCHES_PER_REPLICA, UserConfig
from engine.settings import Settings

RUN = Path(__file__).parents[3] / "run"
SERVE = yaml.safe_load((RUN / "serve.yaml").read_text("utf-8"))
RAY = dotenv_values(RUN / "ray.env")
SERVICE, POLICY = yaml.safe_load_all((RUN / "kuberay.yaml").read_text("utf-8"))
KUBERNETES = yaml.safe_load(SERVICE["spec"]["serveConfigV2"])
SETTINGS = {name.upper(): field.default for name, field in Settings.model_fields.items()}
# All in which Kubernetes differs from one machine.
MACHINE_ONLY = {"num_replicas": 1, "ray_actor_options": {"num_cpus": 1, "num_gpus": 0}}


def deployment(config: dict[str, Any]) -> dict[str, Any]:
    (application,) = config["applications"]
    (found,) = application["deployments"]
    return found


def test_kubernetes_has_the_same_configuration_for_more_machines() -> None:
    config = copy.deepcopy(KUBERNETES)
    config["http_options"]["host"] = SERVE["http_options"]["host"]
    sized = deployment(config)
    del sized["autoscaling_config"]
    sized |= MACHINE_ONLY | {"max_queued_requests": deployment(SERVE)["max_queued_requests"]}
    assert config == SERVE


def test_one_machine_is_reached_from_itself_alone() -> None:
    assert SERVE["http_options"]["host"] == SETTINGS["ENGINE_HOST"] == "127.0.0.1"
    assert SERVE["http_options"]["port"] == SETTINGS["ENGINE_PORT"]
    assert RAY["RAY_AUTH_MODE"] == "token"
    for secret in ("RAY_AUTH_TOKEN_PATH", "ENGINE_API_KEY_FILE"):
        assert RAY[secret].startswith("run/secrets/")  # a folder that only its owner can open
    assert RAY["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"


def test_the_configuration_names_what_there_is() -> None:
    (application,) = SERVE["applications"]
    module, name = application["import_path"].split(":")
    source = RUN.parent / f"{module.replace('.', '/')}.py"
    assert f"\ndef {name}(" in source.read_text("utf-8")
    wanted = UserConfig.model_validate(application["deployments"][0]["user_config"])
    assert (RUN / "models" / f"{wanted.bundle}.json").is_file()
    assert SERVE["http_options"]["request_timeout_s"] == SETTINGS["ENGINE_MAX_TIMEOUT_S"]


def test_the_queue_is_as_long_as_what_all_replicas_have_in_hand() -> None:
    for config, batch in ((SERVE, SETTINGS["ENGINE_MAX_BATCH"]), (KUBERNETES, max_batch())):
        sized = deployment(config)
        most = sized.get("num_replicas") or sized["autoscaling_config"]["max_replicas"]
        assert sized["max_queued_requests"] == BATCHES_PER_REPLICA * batch * most
    assert (
        deployment(KUBERNETES)["autoscaling_config"]["target_ongoing_requests"] == 2 * max_batch()
    )


def max_batch() -> int:
    (head,) = SERVICE["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"]
    return int(told(head)["ENGINE_MAX_BATCH"])


def told(container: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container["env"]}


def test_ray_knows_the_same_on_one_machine_and_on_kubernetes() -> None:
    cluster = SERVICE["spec"]["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": RAY["RAY_AUTH_MODE"]}
    pods = [group["template"]["spec"] for group in cluster["workerGroupSpecs"]]
    pods.append(cluster["headGroupSpec"]["template"]["spec"])
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["terminationGracePeriodSeconds"] > SETTINGS["ENGINE_MAX_TIMEOUT_S"]
        (container,) = pod["containers"]
        environment = told(container)
        for name in ("RAY_USAGE_STATS_ENABLED", "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"):
            assert environment[name] == RAY[name]
        assert {"name": "serve", "containerPort": KUBERNETES["http_options"]["port"]} in container[
            "ports"
        ]
    assert POLICY["kind"] == "NetworkPolicy"


def test_no_key_is_written_down_and_every_setting_is_one() -> None:
    assert RAY["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] == IMPORT_PATH
    cluster = SERVICE["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    pods = [told(group["template"]["spec"]["containers"][0]) for group in groups]
    for environment in (*pods, RAY):
        assert {n for n in environment if n.startswith(("ENGINE_", "FACE_"))} <= SETTINGS.keys()
        assert "ENGINE_API_KEY" not in environment
        assert "ENGINE_API_KEY_FILE" in environment
