"""What a wide gallery says to strangers, and to its own people, on people and photos held out.

    uv run python -m tests.benchmarks.strangers ../shared/data/celebrities ../shared/data/lfw \
        --aligned --people run/models/celebrities.tsv [--embedder mobilefacenet] [--curve FILE.png]

Everybody in the sources whom the list does not have is a stranger. Strangers are divided into
three folds by person. Three times a bundle is built, by the code of `training classifier`, from
four fifths of the gallery's photos and the strangers of two folds; strangers of the third, and the
last fifth of the photos, are then asked about as a bot asks. Bounds are by person. The photos that
most look like somebody of the gallery are listed: look at them, some have a wrong label.
"""

import argparse
import csv
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from engine import threads
from engine.people.gallery import Gallery
from engine.types import Verdict
from training import tools
from training.bundles import gallery
from training.bundles.gallery import Source, Summarisation
from training.datasets import data, material
from training.datasets.people import key
from training.fit.fitting import Machine
from training.fit.recipes import Recipe, fit_head, plan
from training.measure import metrics
from training.measure.calibration import Strangers, repeated

FOLDS = 3
HELD_OUT = 0.2
PERCENTILES = (95.0, 99.0, 99.9)
FAINT = 8.0
BATCH = 512


def summary(recipe):
    """How a gallery's people become directions, remembering what was made of the same faces."""
    if recipe == "gallery":
        return gallery.CLUSTERS
    wanted = plan(Recipe.HEAD, network="embedder")
    machine = Machine(torch.device("cpu"), 1, 1, None).alone()
    made = {}

    def directions(vectors, owner, people):
        key = (len(vectors), people, vectors[::97].tobytes())
        if key not in made:
            made[key] = fit_head(wanted, vectors, owner, people, wanted.epochs, machine)
        return made[key]

    return Summarisation("classifier", directions, {"recipe": "head"})


def answers(bundle, vectors):
    """(n,) name's number, similarity, percentile and verdict of the nearest person, as served."""
    found = Gallery(bundle, torch.device("cpu"))
    number = {name: i for i, name in bundle.manifest.people.items()}
    first = [
        matches[0]
        for k in range(0, len(vectors), BATCH)
        for matches in found.search(torch.from_numpy(vectors[k : k + BATCH]), 1)
    ]
    return (
        np.array([number[match.name] for match in first]),
        np.array([match.similarity for match in first]),
        np.array([match.percentile for match in first]),
        np.array([match.verdict is Verdict.IS for match in first]),
    )


def share(hit, person):
    """A rate of faces with its bounds by person."""
    found = metrics.rate(hit, person)
    return None if found is None else asdict(found)


def by_person(hit, person, seed=0):
    """The share of people, each by the share of their photos, and its 95 % interval."""
    _, numbered = np.unique(person, return_inverse=True)
    each = np.bincount(numbered, hit) / np.bincount(numbered)
    drawn = np.random.default_rng(seed).choice(each, (2000, len(each))).mean(axis=1)
    lower, upper = metrics.clopper_pearson(round(float(each.sum())), len(each))
    return {
        "value": float(each.mean()),
        "lower_95": min(lower, float(np.quantile(drawn, 0.025))),
        "upper_95": max(upper, float(np.quantile(drawn, 0.975))),
        "people": len(each),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("--people", type=Path, required=True)
    parser.add_argument("--embedder", default="dlib-resnet29")
    parser.add_argument("--recipe", choices=("head", "gallery"), default="head")
    parser.add_argument("--aligned", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worst", type=int, default=10)
    parser.add_argument("--sexes", type=Path, help="TSV with the columns folder and sex.")
    parser.add_argument("--curve", type=Path, help="Draw the trade-off into this PNG.")
    arguments = parser.parse_args()
    threads.configure()
    eyes = tools.load(arguments.embedder)
    given = material.read(
        arguments.sources, arguments.people, arguments.sources, eyes, aligned=arguments.aligned
    )
    faces, outside = given.faces, given.strangers
    vectors = data.vectors(faces, eyes.embedder)
    theirs = data.vectors(outside, eyes.embedder)
    rest, held = data.split(faces, HELD_OUT, arguments.seed)
    generator = np.random.default_rng(arguments.seed)
    fold = (generator.permutation(len(outside.people)) % FOLDS)[outside.owner]
    how = summary(arguments.recipe)
    known, strangers = [], []
    promised = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(FOLDS):
            calibrating, asked = fold != number, fold == number
            _, person = np.unique(outside.owner[calibrating], return_inverse=True)
            bundle = gallery.build(
                faces.part(rest),
                vectors[rest],
                eyes.embedder.specification,
                Path(folder) / f"fold{number}",
                Source("benchmark", "none", "2026-01-01", given.listed),
                thumbnails=False,
                borrow=None,
                summary=how,
                strangers=Strangers(theirs[calibrating], person.astype(np.int64), outside.name),
            )
            record = bundle.calibration.identification
            promised.append(record.model_dump())
            known.append(answers(bundle, vectors[held]))
            strangers.append((np.flatnonzero(asked), *answers(bundle, theirs[asked])))
    columns = [np.concatenate(part) for part in zip(*strangers, strict=True)]
    index, name, similarity, percentile, is_ = columns
    person = outside.owner[index]
    source = np.zeros(len(held), int) if faces.home_of is None else faces.home_of[held]
    truth = faces.owner[held]
    own = []
    for number, home in enumerate(arguments.sources):
        mine = source == number
        right = [first[mine] == truth[mine] for first, *_ in known]
        named = [r & verdict[mine] for r, (*_, verdict) in zip(right, known, strict=True)]
        wrong = [~r & verdict[mine] for r, (*_, verdict) in zip(right, known, strict=True)]
        own.append(
            {
                "source": home.name,
                "photos": int(mine.sum()),
                "people": len(np.unique(truth[mine])),
                "top_1": float(np.mean(right)),
                "right_name_with_is": float(np.mean(named)),
                "wrong_name_with_is": float(np.mean(wrong)),
            }
        )
    often = repeated(is_, name, person)
    result = {
        "embedder": arguments.embedder,
        "recipe": arguments.recipe,
        "gallery": len(faces.people),
        "stranger_faces": len(index),
        "stranger_people": len(np.unique(person)),
        "strangers_named": share(is_, person),
        "strangers_named_by_fold": [float(is_[fold[index] == k].mean()) for k in range(FOLDS)],
        "same_name_often": None if often is None else often.model_dump(),
        "percentiles": {str(p): by_person(percentile >= p, person) for p in PERCENTILES},
        "faint": by_person(percentile < FAINT, person),
        "own": own,
        "promised": promised,
        "most_alike": [
            {
                "photo": outside.rows[index[i]].path,
                "taken_for": faces.people[name[i]],
                "similarity": round(float(similarity[i]), 3),
                "percentile": round(float(percentile[i]), 3),
                "is": bool(is_[i]),
            }
            for i in np.argsort(-similarity)[: arguments.worst]
        ],
    }
    if arguments.sexes:
        result["sexes"] = by_sex(arguments.sexes, given, bundle, vectors[held], truth, known)
    print(json.dumps(result, indent=1, ensure_ascii=False))
    if arguments.curve:
        draw(arguments, similarity, known, truth, source)


def by_sex(path, given, bundle, vectors, truth, known):
    """How plausible the nearest other people are, and how often a sex is called by its name.

    The labels are used for nothing but this figure. Each photo's own person is left out of its
    answer, so that everybody is a stranger to the rest.
    """
    with path.open(encoding="utf-8", newline="") as file:
        sexes = {key(row["folder"]): row["sex"] for row in csv.DictReader(file, delimiter="\t")}
    names = {
        person.name: sexes.get(key(folder))
        for person in given.listed
        for folder in person.folders[:1]
    }
    of = np.array([names.get(name) or "" for name in given.faces.people])
    similarity = (
        Gallery(bundle, torch.device("cpu")).similarities(torch.from_numpy(vectors)).clone()
    )
    similarity[torch.arange(len(truth)), torch.from_numpy(truth)] = -2.0
    similarity[:, torch.from_numpy(np.flatnonzero(of == ""))] = -2.0
    nearest = similarity.topk(5, dim=1).indices.numpy()
    result = {}
    for sex in ("f", "m"):
        mine = of[truth] == sex
        same = of[nearest[mine]] == sex
        result[sex] = {
            "photos": int(mine.sum()),
            "people_of_the_gallery": int((of == sex).sum()),
            "first_is_of_the_same_sex": float(same[:, 0].mean()),
            "of_the_first_five": float(same.mean()),
            "right_name_with_is": float(
                np.mean([(n[mine] == truth[mine]) & verdict[mine] for n, *_, verdict in known])
            ),
        }
    return result


def draw(arguments, similarity, known, truth, source):
    """The share of strangers called by a name against that of photos called by the right one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot(xscale="log")
    levels = np.quantile(similarity, 1 - np.geomspace(2e-4, 0.1, 60))
    for number, home in enumerate(arguments.sources):
        mine = source == number
        named = [
            np.mean([((n[mine] == truth[mine]) & (s[mine] >= level)) for n, s, *_ in known])
            for level in levels
        ]
        axes.plot([(similarity >= level).mean() for level in levels], named, label=home.name)
    axes.axvline(1e-3, color="grey", linestyle=":")
    axes.set_xlabel("strangers' faces called by a name")
    axes.set_ylabel("photos called by the right name")
    axes.set_title(f"{arguments.embedder}, {arguments.recipe}: people and photos held out")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(arguments.curve, dpi=120)


if __name__ == "__main__":
    main()
