"""The files for init systems and Kubernetes: they parse, and say of Stem what is so."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stem_actors.config import Settings, resolve
from stem_cli.exit_codes import ExitCode
from stem_cli.parsers.node import build_node_parser

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "cli/templates"
UNIT = TEMPLATES / "systemd/stem-worker@.service"
MANIFEST = TEMPLATES / "kubernetes/stem-node.yaml"
MARGIN = 15


def test_every_template_is_installed() -> None:
    files: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    installed = {f"{folder.removeprefix('share/stem/')}/{Path(each).name}": each for folder, each in _pairs(files)}
    written = {str(path.relative_to(TEMPLATES)): str(path.relative_to(ROOT)) for path in TEMPLATES.rglob("*") if path.is_file()}
    assert installed == written


def _pairs(files: Mapping[str, list[str]]) -> list[tuple[str, str]]:
    return [(folder, each) for folder, found in files.items() if folder.startswith("share/stem/") for each in found]


def longest_leave(settings: Settings) -> int:
    return round(settings.drain_timeout + settings.soft_grace_period + MARGIN)


# ---------------------------------------------------------------- systemd


def unit() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as its documentation says
    parser.read_string(UNIT.read_text())
    return parser["Service"]


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze here: apt install systemd")
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/usr/bin/stem-node", str(Path(sys.executable).with_name("stem-node"))))
    instance = tmp_path / "stem-worker@mail.service"
    done = subprocess.run(
        [program, "verify", "--man=no", "--generators=no", str(copy), str(instance)], capture_output=True, text=True, timeout=50
    )
    about_us = [line for line in done.stderr.splitlines() if "stem-worker" in line]
    assert (done.returncode, about_us) == (0, []), done.stderr


def test_the_unit_starts_a_node_and_gives_it_time_to_leave() -> None:
    service = unit()
    program, *words = shlex.split(service["ExecStart"].replace("%H", "web").replace("%i", "mail"))  # as systemd does
    settings = resolve(vars(build_node_parser().parse_args(words)), {}).settings
    assert (program, settings.name, settings.pidfile) == ("/usr/bin/stem-node", "web-mail", "/run/stem/mail/mail.pid")
    assert int(service["TimeoutStopSec"]) == longest_leave(settings)
    assert service["RestartPreventExitStatus"] == str(int(ExitCode.USAGE))
    assert (service["Type"], service["NotifyAccess"], service["KillMode"]) == ("notify", "main", "mixed")
    assert float(service["WatchdogSec"]) > 4, "a node looks at itself once a second"


# ---------------------------------------------------------------- Kubernetes


def manifest() -> Mapping[str, Any]:
    from ruamel.yaml import YAML

    loader = YAML(typ="safe")
    return {document["kind"]: document for document in loader.load_all(MANIFEST.read_text())}


def test_the_manifest_sets_what_a_node_understands() -> None:
    pod = manifest()["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    settings = manifest()["ConfigMap"]["data"]
    assert all(isinstance(value, str) for value in settings.values())
    words = [word.replace("$(POD_NAME)", "stem-node-7d9f8-abcde") for word in container["args"]]
    assert container["command"] == ["stem-node"]
    resolved = resolve(vars(build_node_parser().parse_args(words)), settings)
    assert resolved.settings.name == "stem-node-7d9f8-abcde"
    assert set(settings) <= set(resolved.sources.values()), "a variable that nobody reads"
    assert {each["name"] for each in container["env"]} == set(re.findall(r"\$\((\w+)\)", " ".join(container["args"])))
    assert pod["terminationGracePeriodSeconds"] == longest_leave(resolved.settings)


def test_the_manifest_asks_for_pages_that_a_node_serves() -> None:
    template = manifest()["Deployment"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    address = resolve({}, manifest()["ConfigMap"]["data"]).settings.admin_address
    assert address is not None
    host, port = address
    assert host == "0.0.0.0", "probes come from outside the pod"
    assert container["ports"] == [{"name": "admin", "containerPort": port}]
    probes = {name: container[name]["httpGet"] for name in ("livenessProbe", "readinessProbe")}
    assert probes == {
        "livenessProbe": {"path": "/livez", "port": "admin"},
        "readinessProbe": {"path": "/readyz", "port": "admin"},
    }
    annotations = template["metadata"]["annotations"]
    assert annotations == {"prometheus.io/scrape": "true", "prometheus.io/port": str(port), "prometheus.io/path": "/metrics"}
    labels = manifest()["Deployment"]["spec"]["selector"]["matchLabels"]
    assert labels.items() <= template["metadata"]["labels"].items()
