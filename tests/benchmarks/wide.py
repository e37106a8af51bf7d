"""What more people cost: building a bundle, and loading and asking it.

    uv run python -m tests.benchmarks.wide build [--recipe head|gallery] [--people 5000]
    uv run python -m tests.benchmarks.wide serve

`build` makes bundles of as many people out of 6 and of 12 made-up vectors each, with as many
strangers, and tells how the processor time grows where the vectors double; with fewer than five
each there are fewer folds to cross-validate. `serve` makes bundles of 18 and of 1,000 people and,
in turns, loads each in a process of its own and looks one photo up, twenty times: ratios of the
medians.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from engine import threads

DIMENSION = 128
ROUNDS = 5
LOOKS = 20


def cloud(people, each, seed=0):
    """(people * each, d) unit vectors around a direction for each person, and their owners."""
    generator = np.random.default_rng(seed)
    owner = np.repeat(np.arange(people), each)
    middle = generator.normal(size=(people, DIMENSION))
    made = middle[owner] + 0.6 * generator.normal(size=(len(owner), DIMENSION))
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made.astype(np.float32), owner


def built(people, each, out, recipe, strangers):
    """A bundle of made-up people, as `training classifier` or `gallery` builds it."""
    from engine.vision.embed import dlib_resnet29
    from tests.benchmarks.strangers import summary
    from training.bundles import gallery
    from training.bundles.gallery import Source
    from training.datasets.data import Faces
    from training.measure.calibration import Strangers

    vectors, owner = cloud(people, each)
    other, person = cloud(strangers, 1, seed=1)
    faces = Faces(
        home=out.parent,
        name="made up",
        people=[f"Person {i:05}" for i in range(people)],
        owner=owner,
        group=np.arange(len(owner)),
        rows=[None] * len(owner),
        dropped={},
    )
    start = time.process_time()
    gallery.build(
        faces,
        vectors,
        dlib_resnet29.DlibResNet29.specification,
        out,
        Source("made up", "none", "2026-01-01"),
        thumbnails=False,
        borrow=None,
        summary=summary(recipe),
        strangers=Strangers(other, person, "made up"),
    )
    return time.process_time() - start


def build(recipe, people):
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for each in (6, 12):
            seconds.append(built(people, each, Path(folder) / f"b{each}", recipe, people))
            print(f"{people * each:,} vectors: {seconds[-1]:.1f} s", file=sys.stderr)
    growth = seconds[1] / seconds[0]
    print(json.dumps({"recipe": recipe, "people": people, "growth_where_vectors_double": growth}))


def ask(stem):
    """Load a bundle in this process and look one photo up; seconds and memory as JSON."""
    import skimage.data
    from PIL import Image

    from engine.pipeline import Pipeline
    from engine.request import PhotoRequest
    from engine.settings import Settings

    threads.configure()
    start = time.perf_counter()
    pipeline = Pipeline.from_settings(Settings(engine_device="cpu", engine_bundle=str(stem)))
    loaded = time.perf_counter() - start
    photo = PhotoRequest(Image.fromarray(skimage.data.astronaut()), top_k=8)
    took = []
    for _ in range(LOOKS):
        start = time.perf_counter()
        pipeline.analyze([photo])
        took.append(time.perf_counter() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([loaded, float(np.median(took)), memory]))


def serve():
    with tempfile.TemporaryDirectory() as folder:
        stems = [Path(folder) / "few", Path(folder) / "many"]
        for stem, people in zip(stems, (18, 1_000), strict=True):
            built(people, 20, stem, "gallery", 1_500)
        figures = [[], []]
        for _ in range(ROUNDS):
            for stem, found in zip(stems, figures, strict=True):
                command = [sys.executable, "-m", "tests.benchmarks.wide", "ask", str(stem)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found.append(json.loads(done.stdout))
        few, many = (np.median(found, axis=0) for found in figures)
        names = ("load", "look_up", "memory")
        ratio = dict(zip(names, (many / few).round(3).tolist(), strict=True))
        print(json.dumps({"people": [18, 1_000], "ratio_of_medians": ratio, "rounds": ROUNDS}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("build", "serve", "ask"))
    parser.add_argument("stem", nargs="?", type=Path)
    parser.add_argument("--recipe", choices=("head", "gallery"), default="head")
    parser.add_argument("--people", type=int, default=5_000, help="of `build`")
    arguments = parser.parse_args()
    if arguments.what == "ask":
        ask(arguments.stem)
    elif arguments.what == "serve":
        threads.configure()
        serve()
    else:
        threads.configure()
        build(arguments.recipe, arguments.people)


if __name__ == "__main__":
    main()
