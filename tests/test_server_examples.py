"""The examples of docs/server.md: what can be checked of them without the systems that they are for."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pipelines.commands.cli import replit
from pipelines.server.options import ServeOptions

EXAMPLES = Path(__file__).parent.parent / "docs/examples"
ROUTES = {"/health", "/metrics"}


def option(name: str, text: str) -> float:
    found = re.search(rf"{name}[=:] *(\d+)", text)
    assert found, f"{name} is missing"
    return float(found[1])


@pytest.mark.parametrize("name", ["replit.service", "Containerfile"])
def test_their_options_exist(name: str) -> None:
    known = {spelled for parameter in replit.params for spelled in parameter.opts}
    command = re.search(r"(ExecStart|ENTRYPOINT).*", (EXAMPLES / name).read_text())
    assert command
    used = set(re.findall(r"--[a-z-]+", command[0]))
    assert "--serve" in used
    assert used <= known


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    text = (EXAMPLES / "replit.service").read_text().replace("/opt/replit/bin/replit", sys.executable)
    unit = tmp_path / "replit.service"
    unit.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", "--recursive-errors=no", str(unit)], capture_output=True)
    assert "replit.service" not in done.stderr.decode(), done.stderr.decode()
    assert done.returncode == 0


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy (Debian's package)")
def test_haproxy_takes_its_configuration() -> None:
    subprocess.run(["haproxy", "-c", "-f", str(EXAMPLES / "haproxy.cfg")], check=True)


def test_kubernetes_asks_for_what_there_is() -> None:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    deployment, service = yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text())
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    (port,) = container["ports"]
    assert port["containerPort"] == ServeOptions().port
    assert {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe")} <= ROUTES
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert {mount["name"] for mount in container["volumeMounts"]} == {v["name"] for v in pod["spec"]["volumes"]}


@pytest.mark.parametrize(
    ("name", "field"), [("replit.service", "TimeoutStopSec"), ("kubernetes.yaml", "terminationGracePeriodSeconds")]
)
def test_running_requests_have_time_to_finish(name: str, field: str) -> None:
    assert option(field, (EXAMPLES / name).read_text()) > ServeOptions().shutdown_timeout


def serve_configs() -> list[Any]:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    manifest = yaml.safe_load((EXAMPLES / "rayservice.yaml").read_text())
    return [yaml.safe_load((EXAMPLES / "serve.yaml").read_text()), yaml.safe_load(manifest["spec"]["serveConfigV2"])]


@pytest.mark.parametrize("index", [0, 1])
def test_ray_serve_is_asked_for_what_there_is(index: int, tmp_path: Path) -> None:
    pytest.importorskip("pydantic", reason="needs the extra serve")
    from pipelines.scale.arguments import options_of

    (application,) = serve_configs()[index]["applications"]
    assert application["import_path"] == "pipelines.scale.serve:app"
    key = tmp_path / "key"
    key.write_text("secret\n")
    arguments = application["args"] | ({"api_key_file": str(key)} if "api_key_file" in application["args"] else {})
    options = options_of(arguments)
    *_, model = application["deployments"]
    assert model["autoscaling_config"]["target_ongoing_requests"] == options.max_batch_size
    assert model["max_ongoing_requests"] > options.max_batch_size
    assert model["graceful_shutdown_timeout_s"] == options.shutdown_timeout


@pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray")
@pytest.mark.parametrize("index", [0, 1])
def test_ray_serve_takes_the_configuration(index: int) -> None:
    from ray.serve.schema import ServeDeploySchema

    ServeDeploySchema.model_validate(serve_configs()[index])


def test_kuberay_serves_on_the_port_of_its_configuration() -> None:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    cluster = yaml.safe_load((EXAMPLES / "rayservice.yaml").read_text())["spec"]["rayClusterConfig"]
    config = serve_configs()[1]
    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    assert config["http_options"]["port"] in [port["containerPort"] for port in head["ports"]]
    (group,) = cluster["workerGroupSpecs"]
    ingress, model = config["applications"][0]["deployments"]
    assert ingress["num_replicas"] == 1 + group["minReplicas"]  # at the first deployment there may only be the head
    assert group["maxReplicas"] == model["autoscaling_config"]["max_replicas"]
    (worker,) = group["template"]["spec"]["containers"]
    assert int(worker["resources"]["limits"]["cpu"]) == model["ray_actor_options"]["num_cpus"]
    grace = group["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > model["graceful_shutdown_timeout_s"]
