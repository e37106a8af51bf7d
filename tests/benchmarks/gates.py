"""What the login's gates turn away of photos that nobody took for a login.

    uv run python -m tests.benchmarks.gates ../shared/data/photos/people

Press photos are no selfies: of these, people turned away, laughing or in the shade, many should be
refused. What counts is that nothing but that is, so that each gate is listed by itself.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bot.login.capture_quality import gate
from bot.telegram.incoming import Refusal
from engine import threads
from engine.errors import ImageError
from engine.login_gates import GATES
from engine.media.image import SUFFIXES, open_photo
from engine.pipeline import Pipeline
from engine.settings import Settings
from tests.engine.seers import request_of

QUANTILES = (1, 5, 25, 50, 75, 95, 99)


def analyses(folder):
    """What is seen in every readable photo below a folder."""
    pipeline = Pipeline.from_settings(Settings(engine_device="cpu", engine_bundle="celebrities"))
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in SUFFIXES:
            continue
        try:
            photo = open_photo(path.read_bytes())
        except ImageError:
            continue
        request = request_of(photo, 1, embed=False, aligned=False)
        yield pipeline.analyze([request])[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    threads.configure()
    seen = list(analyses(arguments.folder))
    said = Counter()
    for each in seen:
        found = gate(each)
        said[found.reason.value if isinstance(found, Refusal) else "passes"] += 1
    faces = [each.faces[0] for each in seen if each.faces]
    measured = {
        "size_px": [face.quality.size_px for face in faces],
        "probability": [face.probability for face in faces],
        "yaw": [abs(face.pose.yaw) for face in faces],
        "pitch": [face.pose.pitch for face in faces],
        "blur": [face.quality.blur for face in faces],
        "exposure": [face.quality.exposure for face in faces],
        "shadow": [face.quality.shadow for face in faces],
    }
    table = Table("measured", "gate", *(f"{q} %" for q in QUANTILES))
    quantiles = {}
    for name, values in measured.items():
        quantiles[name] = np.nanpercentile(values, QUANTILES).round(3).tolist()
        table.add_row(name, str(getattr(GATES, name)), *map(str, quantiles[name]))
    console = Console(stderr=True, width=120)
    console.print(table)
    console.print(dict(said.most_common()))
    print(json.dumps({"photos": len(seen), "said": said, "quantiles": quantiles}))


if __name__ == "__main__":
    main()
