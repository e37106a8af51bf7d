"""A login's errors by sex, at the thresholds of a bundle, where labels exist.

    uv run python -m tests.benchmarks.sexes run/datasets/celebrities run/datasets/lfw \
        --people run/models/celebrities.tsv --sexes ../shared/data/lfw_people.tsv \
        [--bundle celebrities-mobilefacenet]

The people of the list with nine photos or more enrol with four photos and are tried with three
others, and by everybody else of the list. These are the people whom the bundle was calibrated on:
the figures compare the sexes, and say nothing about other people.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np

from engine import bundle as bundles
from engine import threads
from training import tools
from training.datasets import data, facing, material
from training.datasets.people import key
from training.measure import login, metrics

TEMPLATES, PROBES = 4, 3
FEWEST = 9


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("--people", type=Path, required=True)
    parser.add_argument("--sexes", type=Path, required=True)
    parser.add_argument("--bundle", default="celebrities")
    arguments = parser.parse_args()
    threads.configure()
    calibration = bundles.load(arguments.bundle).manifest.login
    eyes = tools.load(calibration.embedder)
    given = material.read(arguments.sources, arguments.people, None, eyes, aligned=True)
    with arguments.sexes.open(encoding="utf-8", newline="") as file:
        sexes = {key(row["folder"]): row["sex"] for row in csv.DictReader(file, delimiter="\t")}
    sex_of = {
        person.name: sexes.get(key(folder))
        for person in given.listed
        for folder in person.folders[:1]
    }
    many = np.bincount(given.faces.owner) >= FEWEST
    known = np.array([sex_of.get(name) is not None for name in given.faces.people])
    faces = given.faces.part(np.flatnonzero((many & known)[given.faces.owner]))
    numbers, owner = np.unique(faces.owner, return_inverse=True)
    vectors = data.vectors(faces, eyes.embedder)
    seen = login.login_faces(faces, vectors, facing.poses(faces, eyes.detector))
    crowd = login.LoginFaces(vectors, owner.astype(np.int64), seen.group, seen.frontal, seen.turned)
    sex = np.array([sex_of[given.faces.people[i]] for i in numbers])
    (trials,) = login.LoginSimulation(crowd, [(TEMPLATES, PROBES)], 0, calibration.centre).play()
    threshold = calibration.point("photo", TEMPLATES, PROBES).threshold
    rows = trials.rows()
    result = {"bundle": arguments.bundle, "embedder": calibration.embedder}
    for wanted in ("f", "m"):
        own = sex[trials.whose] == wanted
        tried = (sex[rows.victim] == wanted) & (sex[rows.impostor] == wanted)
        refused = metrics.rate(trials.genuine[own] < threshold, trials.whose[own])
        result[wanted] = {
            "people": int((sex == wanted).sum()),
            "right_ones_refused": refused.value,
            "right_ones_refused_upper_95": refused.upper_95,
            "strangers_of_the_same_sex_let_in": float((rows.score[tried] >= threshold).mean()),
            "rows_of_five_attempts": int(tried.sum()),
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
