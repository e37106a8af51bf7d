"""Accuracy of the gallery, or of a trained head, on faces that it has not seen.

    uv run python -m tests.benchmarks.accuracy ../shared/data/celebrities [--head]

Each person's crops are split five ways; a fifth is left out, a gallery is built from the rest as
`training gallery` builds it (`prepare`'s decisions and all), and the left-out crops are looked up.
No copy of a left-out crop stays in the gallery, and no left-out crop is dropped for looking odd.
Then each person in turn is left out altogether, calibration included, and their crops are
strangers.
"""

import argparse
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from engine import threads
from engine.media import image
from engine.people.gallery import best_per_person
from engine.vision import embed
from engine.vision.align import ARCFACE_TEMPLATE, cut
from engine.vision.detect import whole_crop
from engine.vision.quality import quality
from training.bundles.gallery import prototypes
from training.datasets import registration
from training.datasets.audit import FaceLimits, Overrides, Photos, decide
from training.datasets.manifest import Code
from training.datasets.twins import signature
from training.fit.fitting import Machine
from training.fit.recipes import Recipe, fit_head, plan
from training.measure.calibration import calibrate
from training.vectors import person_means, unit

BATCH = 64
GREY_PX = 16
COPY = 0.95
"""Correlation of tiny grey pictures from which a figure leaves one of the two out."""
KEPT = {"", Code.SEVERAL_FACES, Code.OPERATOR}


@dataclass(frozen=True)
class Crops:
    """Everybody's crops: embeddings, tiny grey pictures, measurements."""

    people: list
    owner: np.ndarray
    vectors: np.ndarray
    grey: np.ndarray
    pictures: np.ndarray
    size_px: np.ndarray
    blur: np.ndarray

    def part(self, index, without=None):
        """Some of the crops; where a person is left out, the others are numbered without them."""
        owner, people = self.owner[index], self.people
        if without is not None:
            owner = owner - (owner > without)
            people = [name for i, name in enumerate(people) if i != without]
        rest = (self.vectors, self.grey, self.pictures, self.size_px, self.blur)
        return Crops(people, owner, *(values[index] for values in rest))

    def signatures(self):
        """(n, 256) unit vectors by which copies are told."""
        return signature(self.grey)


def tiny(chip):
    """A face's tiny grey picture."""
    box = Image.Resampling.BOX
    return np.asarray(Image.fromarray(chip).convert("L").resize((GREY_PX, GREY_PX), box))


def read(folder, embedder):
    template, chip = embedder.specification.template, ARCFACE_TEMPLATE
    homes = sorted(path for path in folder.iterdir() if path.is_dir())
    paths = [(i, path) for i, home in enumerate(homes) for path in sorted(home.iterdir())]
    vectors, grey, pictures, measured = [], [], [], []
    for start in range(0, len(paths), BATCH):
        crops = []
        for _, path in paths[start : start + BATCH]:
            photo = image.open_photo(path.read_bytes()).image
            found = whole_crop(photo.size)
            crops.append(cut(photo, found.landmarks[0], template))
            face = cut(photo, found.landmarks[0], chip)
            grey.append(tiny(face))
            pictures.append(registration.grey(face))
            measured.append(quality(tuple(found.boxes[0].tolist()), crops[-1]))
        vectors.append(embed.embed_crops(embedder, np.stack(crops)).cpu().numpy())
    return Crops(
        people=[home.name for home in homes],
        owner=np.array([i for i, _ in paths]),
        vectors=np.concatenate(vectors),
        grey=np.stack(grey),
        pictures=np.stack(pictures),
        size_px=np.array([entry.size_px for entry in measured], np.float32),
        blur=np.array([entry.blur for entry in measured], np.float32),
    )


@cache
def same(one, other):
    """`registration.same_picture`, of pictures as bytes: the same pairs come in every fold."""
    side = registration.SIDE_PX
    pictures = (np.frombuffer(data, np.float32).reshape(side, side) for data in (one, other))
    return registration.same_picture(*pictures)


def kept(crops):
    """The crops that `training prepare` would learn from."""
    count = len(crops.owner)
    nobody = np.zeros(count, bool)
    decided = decide(
        Photos(
            people=len(crops.people),
            owner=crops.owner,
            first=np.arange(count + 1),
            vectors=crops.vectors.copy(),
            grey=crops.grey,
            area=np.ones(count, np.float32),
            size_px=crops.size_px,
            blur=crops.blur,
            identity=np.arange(count),
            word=Overrides(nobody, nobody, nobody, np.full(count, -1)),
        ),
        FaceLimits(),
        lambda one, other: same(crops.pictures[one].tobytes(), crops.pictures[other].tobytes()),
    )
    return np.flatnonzero([code in KEPT for code in decided.code])


def head(vectors, owner, people):
    """Directions as `training classifier` trains them by default."""
    chosen = plan(Recipe.HEAD, network=embed.DEFAULT)
    return fit_head(chosen, vectors, owner, people, chosen.epochs, Machine(torch.device("cpu")))


def gallery(training, summary):
    """(centre, prototypes, their owners, calibration) of `training.bundles.gallery.build`."""
    clean = training.part(kept(training))
    vectors, owner, people = clean.vectors, clean.owner, len(training.datasets.people)
    calibration, _ = calibrate(vectors, owner, people, summary)
    centre = person_means(vectors, owner, people).mean(axis=0)
    made, made_owner = summary(unit(vectors - centre), owner, people)
    return centre, made, made_owner, calibration


def look_up(queries, built, people):
    centre, made, made_owner, _ = built
    return best_per_person(
        torch.from_numpy(unit(queries - centre)),
        torch.from_numpy(made),
        torch.from_numpy(made_owner),
        people,
    ).numpy()


def held_out(everything, people, summary):
    """Ranks and verdicts of a fifth of everybody's crops, five times."""
    fold = np.zeros(len(everything.owner), int)
    generator = np.random.default_rng(0)
    for person in range(people):
        members = np.flatnonzero(everything.owner == person)
        fold[members] = generator.permutation(len(members)) % 5
    rank, named = [], []
    signatures = everything.signatures()
    copies = signatures @ signatures.T > COPY
    for k in range(5):
        test = np.flatnonzero(fold == k)
        training = np.flatnonzero((fold != k) & ~copies[test].any(axis=0))
        built = gallery(everything.part(training), summary)
        scores = look_up(everything.vectors[test], built, people)
        own = scores[np.arange(len(test)), everything.owner[test]]
        rank.append((scores > own[:, None]).sum(axis=1))
        named.append((rank[-1] == 0) & (own >= built[3].identification.threshold))
    return np.concatenate(rank), np.concatenate(named)


def strangers(everything, people, summary):
    """For every crop, whether a gallery without its person calls it somebody."""
    called = np.zeros(len(everything.owner), bool)
    for person in range(people):
        out = everything.owner == person
        built = gallery(everything.part(np.flatnonzero(~out), without=person), summary)
        scores = look_up(everything.vectors[out], built, people - 1)
        called[out] = scores.max(axis=1) >= built[3].identification.threshold
    return called


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="a folder per person of aligned crops")
    parser.add_argument("--embedder", default=embed.DEFAULT)
    parser.add_argument("--head", action="store_true", help="a trained head, not cluster means")
    arguments = parser.parse_args()
    threads.configure()
    cpu = torch.device("cpu")
    embedder = embed.load(arguments.embedder, cpu, Path("run/weights"))
    everything = read(arguments.folder, embedder)
    people = len(everything.people)
    summary = head if arguments.head else prototypes
    rank, named = held_out(everything, people, summary)
    called = strangers(everything, people, summary)
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
