"""Both mappings on simulated devices, in a subprocess."""

import json
import re
from pathlib import Path

import pytest

WORKER = Path(__file__).parent / "workers" / "eight_devices.py"
CHECKS = re.findall(r"^def check_(\w+)", WORKER.read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def eight_devices(run_workers, tmp_path_factory):
    target = tmp_path_factory.mktemp("devices") / "report.json"
    run_workers(WORKER, [target])
    return json.loads(target.read_text())


@pytest.mark.parametrize("name", CHECKS)
def test_on_8_devices(eight_devices, name):
    assert eight_devices[f"check_{name}"] == ""
