"""Accuracy of the gallery on faces that it has not seen.

    uv run python -m tests.benchmarks.accuracy ../shared/data/celebrities

Each person's crops are split five ways; a fifth is left out, a gallery is built from the rest as
`training gallery` builds it (audit and all), and the left-out crops are looked up. No copy of a
left-out crop stays in the gallery, and no left-out crop is dropped for looking odd. Then each
person in turn is left out altogether, calibration included, and their crops are strangers.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from engine import embed, threads
from engine.gallery import best_per_person
from training import faces
from training.audit import COPY_SIGNATURE, audit, mean_of_means, unit
from training.calibration import calibrate
from training.gallery import prototypes


def part(whole, index):
    return replace(
        whole,
        paths=[whole.paths[i] for i in index],
        owner=whole.owner[index],
        vectors=whole.vectors[index],
        signatures=whole.signatures[index],
        chips=[],
    )


def gallery(training):
    """(centre, prototypes, their owners, calibration), as `training.gallery.build` makes them."""
    kept = audit(training).kept
    vectors, owner = training.vectors[kept], training.owner[kept]
    people = len(training.people)
    calibration, _ = calibrate(vectors, owner, people, prototypes)
    centre = mean_of_means(vectors, owner, people).mean(axis=0)
    made, made_owner = prototypes(unit(vectors - centre), owner, people)
    return centre, made, made_owner, calibration


def look_up(queries, built, people):
    centre, made, made_owner, _ = built
    return best_per_person(
        torch.from_numpy(unit(queries - centre)),
        torch.from_numpy(made),
        torch.from_numpy(made_owner),
        people,
    ).numpy()


def held_out(everything, people):
    """Ranks and verdicts of a fifth of everybody's crops, five times."""
    fold = np.zeros(len(everything.owner), int)
    generator = np.random.default_rng(0)
    for person in range(people):
        members = np.flatnonzero(everything.owner == person)
        fold[members] = generator.permutation(len(members)) % 5
    rank, named = [], []
    copies = everything.signatures @ everything.signatures.T > COPY_SIGNATURE
    for k in range(5):
        test = np.flatnonzero(fold == k)
        training = np.flatnonzero((fold != k) & ~copies[test].any(axis=0))
        built = gallery(part(everything, training))
        scores = look_up(everything.vectors[test], built, people)
        own = scores[np.arange(len(test)), everything.owner[test]]
        rank.append((scores > own[:, None]).sum(axis=1))
        named.append((rank[-1] == 0) & (own >= built[3].identification.threshold))
    return np.concatenate(rank), np.concatenate(named)


def strangers(everything, people):
    """For every crop, whether a gallery without its person calls it somebody."""
    called = np.zeros(len(everything.owner), bool)
    for person in range(people):
        out = everything.owner == person
        rest = part(everything, np.flatnonzero(~out))
        rest = replace(
            rest,
            people=[name for i, name in enumerate(everything.people) if i != person],
            owner=rest.owner - (rest.owner > person),
        )
        built = gallery(rest)
        scores = look_up(everything.vectors[out], built, people - 1)
        called[out] = scores.max(axis=1) >= built[3].identification.threshold
    return called


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="a folder per person of aligned crops")
    parser.add_argument("--embedder", default=embed.DEFAULT)
    arguments = parser.parse_args()
    threads.configure()
    cpu = torch.device("cpu")
    embedder = embed.load(arguments.embedder, cpu, Path("run/weights"))
    everything = faces.read(
        faces.walk(arguments.folder), None, embedder, aligned=True, progress=lambda done: None
    )
    people = len(everything.people)
    rank, named = held_out(everything, people)
    called = strangers(everything, people)
    by_person = {
        name: int(called[everything.owner == i].sum()) for i, name in enumerate(everything.people)
    }
    print(
        json.dumps(
            {
                "crops": len(everything.owner),
                "people": people,
                "top_1": float((rank == 0).mean()),
                "top_5": float((rank < 5).mean()),
                "called_is_by_right_name": float(named.mean()),
                "strangers_called_is": float(called.mean()),
                "strangers_called_is_by_person": {k: v for k, v in by_person.items() if v},
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
