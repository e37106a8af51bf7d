"""`prepare`, killed at random moments and started again, against an undisturbed run.

    uv run python -m tests.benchmarks.prepare_kills ../shared/data/celebrities --kills 20

Compares the manifest, the crops and the cached embeddings byte by byte.
"""

import argparse
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np

from training.datasets import data, manifest


def command(source, home, options):
    return [sys.executable, "-m", "training", "prepare", str(source), "--out", str(home), *options]


def content(home):
    """Everything that `prepare` promises: manifest, crops, embeddings."""
    with closing(sqlite3.connect(home / data.CACHE)) as cache:
        rows = cache.execute("SELECT * FROM embeddings ORDER BY embedder, face").fetchall()
    crops = {
        str(path.relative_to(home)): path.read_bytes()
        for kind in ("crops", "others")
        for path in sorted((home / kind).rglob("*"))
        if path.is_file()
    }
    return (home / manifest.NAME).read_bytes(), crops, rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--per-person", type=int, default=30)
    parser.add_argument("--photos", action="store_true", help="Photos, not aligned crops.")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    options = [] if arguments.photos else ["--aligned"]
    generator = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "photos"
        for person in sorted(path for path in arguments.source.iterdir() if path.is_dir()):
            (source / person.name).mkdir(parents=True)
            for path in sorted(person.iterdir())[: arguments.per_person]:
                shutil.copyfile(path, source / person.name / path.name)
        calm, hunted = Path(scratch) / "calm", Path(scratch) / "hunted"
        start = time.perf_counter()
        subprocess.run(command(source, calm, options), check=True, stdout=subprocess.DEVNULL)
        whole_s = time.perf_counter() - start
        kills, finished = 0, 0
        while kills < arguments.kills:
            # The runs that finish before they are killed begin anew.
            process = subprocess.Popen(command(source, hunted, options), stdout=subprocess.DEVNULL)
            try:
                process.wait(float(generator.uniform(0.3, whole_s)))
                finished += 1
                if content(hunted) != content(calm):
                    sys.exit(f"different after {kills} kills")
                shutil.rmtree(hunted)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
        subprocess.run(command(source, hunted, options), check=True, stdout=subprocess.DEVNULL)
        if content(hunted) != content(calm):
            sys.exit(f"different after {kills} kills")
        print(f"{kills} kills, {finished + 1} finished runs, all equal to the undisturbed one.")


if __name__ == "__main__":
    main()
