"""A batch's parts side by side (`engine.vision.worker_threads`) against one after the other.

    uv run --no-sync python -m tests.benchmarks.halves ../shared/data/photos

The same photos of mixed sizes in batches of 8, in turns, on as many cores as there are.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from engine import threads
from tests.benchmarks.served import photo_files


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=48)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    count = threads.configure()

    from engine.media.image import open_photo
    from engine.pipeline import Pipeline
    from engine.settings import Settings
    from engine.vision.worker_threads import WorkerThreads
    from tests.engine.seers import request_of

    pipeline = Pipeline.from_settings(Settings(engine_device="cpu", engine_bundle="celebrities"))
    ways = {"side by side": pipeline._workers, "one after the other": WorkerThreads(1)}
    with tempfile.TemporaryDirectory() as scratch:
        files = photo_files(arguments.folder, Path(scratch), arguments.photos)
        requests = [request_of(open_photo(path.read_bytes()), 5) for path in map(Path, files)]

    def once(workers):
        pipeline._workers = workers
        began = time.perf_counter()
        for start in range(0, len(requests), 8):
            pipeline.analyze(requests[start : start + 8])
        return time.perf_counter() - began

    for workers in ways.values():
        once(workers)
    took = {name: [] for name in ways}
    for _ in range(arguments.turns):
        for name, workers in ways.items():
            took[name].append(once(workers))
    ratios = [a / b for a, b in zip(*reversed(list(took.values())), strict=True)]
    print(
        json.dumps(
            {
                "threads": count,
                "photos": len(requests),
                "times_as_fast": round(statistics.median(ratios), 2),
                "least": round(min(ratios), 2),
                "most": round(max(ratios), 2),
            }
        )
    )


if __name__ == "__main__":
    main()
