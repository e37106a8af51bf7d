"""Employees at night, outdoors: what adapting the embedder to such pictures is worth.

    uv run --no-sync python -m tests.benchmarks.domain ../shared/data/celebrities

The crops are degraded (`training.fit.degrade`, strength 1). A third of the people are strangers
(b): nothing learns from any face of theirs. Of the others, the employees (a), a part of the faces
is learned from, by `training vectorizer` as an operator would run it; near-duplicates never fall
apart between parts. Then everybody is enrolled from a few degraded faces that were not learned from
(the mean of their vectors), and the remaining degraded faces are compared with all templates: TAR
at FMR 1e-2, before and after, of (a) among (a) and of (b) among (b).

Two readings of the case: "clean" has good pictures of the employees, as from their badges, and
degrades them for training; "degraded" has nothing but bad pictures of them.

Detection is left out: the crops were aligned before they were degraded. A detector's misses at
night come on top.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from engine import threads
from engine.media import image
from engine.vision import align, embed
from training import tools
from training.datasets import data, manifest, prepare
from training.fit.degrade import degrade
from training.measure.metrics import multiplicities
from training.vectors import person_means, unit

FMR = 1e-2
DRAWS = 10
RESAMPLES = 300
LEARNED_SHARE = 0.6
NOT_KEPT = 3
OPTIONS = {
    "clean": ["--degrade", "1"],
    "degraded": ["--adapter", "mlp", "--loss", "supcon", "--hold", "10"],
}


def pictures(faces):
    """Each face's own crop, as it lies in the prepared dataset."""
    return [
        np.asarray(image.open_photo((faces.home / row.crop).read_bytes()).image)
        for row in faces.rows
    ]


def dataset(faces, index, shown, home):
    """A manifest of some of the faces, with the pictures as shown; returns its folder."""
    (home / "crops").mkdir(parents=True)
    rows = []
    for i in index:
        row = faces.rows[i]
        Image.fromarray(shown[i]).save(home / "crops" / f"{i}.png")
        rows.append(replace(row, id=f"{home.name}-{row.id}", crop=f"crops/{i}.png"))
    manifest.write(home / manifest.NAME, rows)
    return home


def adapt(home, reading, seed, out, blend):
    """Run the command as an operator would; the bundle is wanted whatever it says."""
    command = [sys.executable, "-m", "training", "vectorizer", str(home), "--out", str(out)]
    command += ["--seed", str(seed), "--accept-worse-strangers", "--json", *OPTIONS[reading]]
    if blend is not None:
        command += ["--blend", str(blend)]
    began = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode not in (0, NOT_KEPT):
        raise SystemExit(f"training failed ({done.returncode})")
    return json.loads(done.stdout) | {"seconds": time.monotonic() - began}


def vectors(embedder, faces, shown):
    form = embedder.specification
    crops = [
        align.cut(Image.fromarray(picture), row.landmarks, form.template)
        for picture, row in zip(shown, faces.rows, strict=True)
    ]
    return embed.embed_crops(embedder, np.stack(crops)).cpu().numpy()


def scores(made, owner, templates, seed):
    """(probes, people) similarities to everybody's template, and whose probes they are."""
    generator = np.random.default_rng(seed)
    people, numbers = np.unique(owner, return_inverse=True)
    centred = unit(made - person_means(made, numbers, len(people)).mean(axis=0))
    enrolled, probes = [], []
    for person in range(len(people)):
        own = generator.permutation(np.flatnonzero(numbers == person))
        enrolled.append(centred[own[:templates]].mean(axis=0))
        probes.append(own[templates:])
    probes = np.concatenate(probes)
    return centred[probes] @ unit(np.array(enrolled)).T, numbers[probes]


def tars(similarity, truth, times):
    """TAR at FMR where a person counts as often as `times` says; the threshold is set anew."""
    rows = np.arange(len(truth))
    genuine, weight = similarity[rows, truth], times[truth].astype(float)
    other = np.ones(similarity.shape, bool)
    other[rows, truth] = False
    impostor = similarity[other]
    pair = (times[truth][:, None] * times[None, :])[other]
    order = np.argsort(-impostor)
    running = np.cumsum(pair[order])
    place = np.searchsorted(running, FMR * running[-1], side="right")
    return float(weight[genuine > impostor[order][min(place, len(order) - 1)]].sum() / weight.sum())


def compare(before, after, owner, templates):
    """Before, after and the difference's 95 % interval, bootstrapped by person."""
    drawn = [
        (scores(before, owner, templates, k), scores(after, owner, templates, k))
        for k in range(DRAWS)
    ]
    people = len(np.unique(owner))

    def mean(times):
        pairs = [[tars(*old, times), tars(*new, times)] for old, new in drawn]
        return np.mean(pairs, axis=0)

    old, new = mean(np.ones(people, int))
    samples = [
        np.diff(mean(times))[0]
        for times in multiplicities(people, 0, RESAMPLES)
        if np.count_nonzero(times) > 1
    ]
    lower, upper = np.quantile(samples, (0.025, 0.975))
    return {
        "people": people,
        "before": float(old),
        "after": float(new),
        "missing_part_won": float((new - old) / (1 - old)),
        "difference_95": [float(lower), float(upper)],
    }


def run(faces, reading, seed, arguments):
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(faces.people))
    strangers = np.isin(faces.owner, order[: len(order) // 3])
    learned, tried = data.split(faces, 1 - LEARNED_SHARE, seed)
    night = [
        degrade(picture, arguments.strength, np.random.default_rng((seed, i)))
        for i, picture in enumerate(pictures(faces))
    ]
    # No twin of a stranger's face may be learned from.
    twins = np.isin(faces.group, faces.group[strangers])
    learned = learned[~twins[learned]]
    tried = tried[~strangers[tried]]
    shown = pictures(faces) if reading == "clean" else night
    loaded = tools.load(arguments.embedder)
    with tempfile.TemporaryDirectory() as folder:
        name = f"domain-{reading}-{seed}"
        home = dataset(faces, learned, shown, Path(folder) / name)
        report = adapt(home, reading, seed, Path(folder) / "models" / name, arguments.blend)
        start = vectors(loaded.embedder, faces, night)
        made = start
        if report["bundle"]:
            trained = f"trained:{folder}/models/{name}"
            made = vectors(embed.load(trained, loaded.device, Path()), faces, night)
    out = {"reading": reading, "seed": seed, "verdict": report["verdict"]}
    out |= {"seconds": round(report["seconds"]), "blend": report["blend"]}
    out["held_out_by_the_command"] = report["strangers"][:1]
    out["candidates_of_the_command"] = report["candidates"]
    for templates in arguments.templates:
        for who, index in (("a", tried), ("b", np.flatnonzero(strangers))):
            found = compare(start[index], made[index], faces.owner[index], templates)
            out[f"{who}_from_{templates}"] = found
    return out


def show(found, templates):
    table = Table("reading", "seed", "enrolled from", "who", "before", "after", "missing part won")
    table.add_column("difference, 95 %")
    table.add_column("the command says")
    for record in found:
        for count in templates:
            for who in ("a", "b"):
                row = record[f"{who}_from_{count}"]
                lower, upper = row["difference_95"]
                table.add_row(
                    record["reading"],
                    str(record["seed"]),
                    str(count),
                    who,
                    f"{row['before']:.3f}",
                    f"{row['after']:.3f}",
                    f"{row['missing_part_won']:+.0%}",
                    f"{lower:+.3f} to {upper:+.3f}",
                    f"{record['verdict']} ({record['seconds']} s)",
                )
    Console(stderr=True, width=130).print(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="a folder per person of aligned crops")
    parser.add_argument("--embedder", default=embed.DEFAULT)
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--readings", nargs="+", choices=sorted(OPTIONS), default=["clean"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--blend", type=float, help="as in the command, which chooses it otherwise")
    parser.add_argument("--templates", nargs="+", type=int, default=[3, 5])
    arguments = parser.parse_args()
    threads.configure()
    faces = prepare.dataset(arguments.folder, tools.load(arguments.embedder), aligned=True)
    found = [
        run(faces, reading, seed, arguments)
        for reading in arguments.readings
        for seed in arguments.seeds
    ]
    show(found, arguments.templates)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
