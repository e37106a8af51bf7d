import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.threads import usable_cores

ROOT = Path(__file__).parents[2]

_REPORT = """
import json, os, torch
print(json.dumps({
    "returned": returned,
    "intra": torch.get_num_threads(),
    "inter": torch.get_num_interop_threads(),
    "policy": os.environ.get("OMP_WAIT_POLICY"),
    "omp": os.environ.get("OMP_NUM_THREADS"),
}))
"""


def run(program: str, **environ: str) -> tuple[dict[str, object], str]:
    """Run a program in a fresh process: torch's threads are set up once in a lifetime."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    child = subprocess.run(
        [sys.executable, "-c", program + _REPORT],
        cwd=ROOT,
        env=clean | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout), child.stderr


def test_set_up_before_torch_is_loaded() -> None:
    program = """
import sys
from engine.threads import configure
assert "torch" not in sys.modules
returned = configure(2)
import torch
torch.ones(1000, 1000) @ torch.ones(1000, 1000)
assert configure(2) == 2
"""
    seen, complaints = run(program)
    assert seen == {"returned": 2, "intra": 2, "inter": 1, "policy": "passive", "omp": "2"}
    assert complaints == ""


def test_the_threads_count_in_other_threads_too() -> None:
    program = """
from concurrent.futures import ThreadPoolExecutor
from engine.threads import configure
configure(3)
import torch
with ThreadPoolExecutor(1) as pool:
    returned = pool.submit(torch.get_num_threads).result()
"""
    assert run(program)[0]["returned"] == 3


def test_zero_is_all_cores_and_an_operators_policy_is_kept() -> None:
    program = "from engine.threads import configure; returned = configure()"
    seen, _ = run(program, OMP_WAIT_POLICY="active")
    assert seen["returned"] == seen["intra"] == usable_cores()
    assert seen["policy"] == "active"


def test_too_late_is_told_and_does_what_it_can() -> None:
    program = """
import torch
torch.ones(1000, 1000) @ torch.ones(1000, 1000)
from engine.threads import configure
returned = configure(1)
"""
    seen, complaints = run(program)
    assert seen["intra"] == 1
    assert "OMP_WAIT_POLICY=passive" in complaints
    seen, complaints = run(program, OMP_WAIT_POLICY="passive")
    assert "OMP_WAIT_POLICY" not in complaints


@pytest.mark.parametrize(
    ("content", "at_most"),
    [("100000 100000", 1), ("50000 100000", 1), ("1 100000", 1)],
)
def test_a_containers_share_limits_the_cores(tmp_path: Path, content: str, at_most: int) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(content + "\n")
    assert usable_cores(file) == at_most


@pytest.mark.parametrize("content", ["max 100000", "100000000 100000", "", "nonsense", "1 0 2"])
def test_without_a_limit_all_cores_count(tmp_path: Path, content: str) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(content)
    assert usable_cores(file) == usable_cores(tmp_path / "missing") >= 1
