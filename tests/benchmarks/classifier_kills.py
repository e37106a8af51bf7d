"""A classifier's training, killed at random moments, against one that nobody disturbed.

    uv run python -m tests.benchmarks.classifier_kills ../shared/data/celebrities --kills 20

The same command is started again after every `kill -9`, until it ends by itself; then both bundles
are compared byte for byte. The moments are spread over the time that the undisturbed run took.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

RESUMED = "Going on with the run"


def command(source, home, arguments):
    words = [source, "--aligned", "--out", home / "x", "--runs", home / "runs"]
    fixed = ["--created", "2026-01-01", "--dataset", "kills", "--json"]
    return [sys.executable, "-m", "training", "classifier", *map(str, words), *fixed, *arguments]


def finished(words, after_s=None):
    """Run to the end, or kill after so many seconds; tells whether it ended, and what it said."""
    with subprocess.Popen(
        words,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"ENGINE_DEVICE": "cpu"},
    ) as process:
        try:
            _, said = process.communicate(timeout=after_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            _, said = process.communicate()
            return False, said.decode()
    if process.returncode:
        raise SystemExit(said.decode())
    return True, said.decode()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="a folder of aligned crops, or a manifest")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("options", nargs="*", help="options of `training classifier`, after --")
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as place:
        calm, rough = Path(place) / "calm", Path(place) / "rough"
        for home in (calm, rough):
            home.mkdir()
        start = time.perf_counter()
        finished(command(arguments.source, calm, arguments.options))
        whole_s = time.perf_counter() - start
        kills = resumed = 0
        while kills < arguments.kills:
            moment = float(generator.uniform(0.2, 1.0)) * whole_s
            through, said = finished(command(arguments.source, rough, arguments.options), moment)
            resumed += RESUMED in said
            if through:
                # It was through: a run that is over begins again.
                for path in rough.glob("x.*"):
                    path.unlink()
                continue
            kills += 1
        _, said = finished(command(arguments.source, rough, arguments.options))
        resumed += RESUMED in said
        names = ("x.pth", "x.json")
        equal = all((calm / name).read_bytes() == (rough / name).read_bytes() for name in names)
    found = {"kills": kills, "resumed": resumed, "undisturbed_s": round(whole_s, 1)}
    print(json.dumps(found | {"equal": equal}))
    raise SystemExit(0 if equal else 1)


if __name__ == "__main__":
    main()
