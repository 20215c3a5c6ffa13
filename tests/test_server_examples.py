"""The examples of docs/server.md: what can be checked of them without the systems that they are for."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

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
