"""Faults planted into a copy of the data, and how many of them `prepare` finds.

    uv run python -m tests.benchmarks.prepare_faults ../shared/data/celebrities

Aligned crops get 20 exact and 20 near duplicates (a quarter each re-encoded, resized, brightened,
cropped), 20 swapped labels and 10 broken files; ordinary photos, composed of the same crops on a
canvas, get 10 with a second, larger face of somebody else.

The data has faults of its own. `prepare` first runs on it as it is; what it flags there with the
same code is not counted against it when faults are planted. Recall is of the planted; precision is
found / (found + flagged anew though nothing was planted there). A duplicate counts as found when
either picture of the pair is dropped, a swapped label when it is called a mislabel (called a stray
it is dropped too, and counted apart). Half of the exact copies are put under another person's name:
calling those mislabels is no mistake. "together" is how many duplicates share their original's
group, so that no split can part them.
"""

import argparse
import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance
from rich.console import Console
from rich.table import Table

from engine import threads
from training import tools
from training.datasets import manifest
from training.datasets.manifest import Status
from training.datasets.prepare import prepare

COPIES, NEAR, SWAPPED, BROKEN, PAIRS = 20, 20, 20, 10, 10
FACES_EACH = 12  # photos of one face that tell who each of the composed photos' people is


def near(picture, kind):
    size = picture.size
    if kind == 0:  # saved badly
        return picture, {"format": "JPEG", "quality": 40}
    if kind == 1:
        return picture.resize((84, 84)).resize(size, Image.Resampling.BICUBIC), {"format": "PNG"}
    if kind == 2:
        return ImageEnhance.Brightness(picture).enhance(1.25), {"format": "PNG"}
    edge = 4
    inner = picture.crop((edge, edge, size[0] - edge, size[1] - edge))
    return inner.resize(size, Image.Resampling.BICUBIC), {"format": "PNG"}


def plant(folder, clean, generator):
    """Plant faults among photos that nothing was said about; returns where, by kind."""
    people = sorted({path.split("/")[0] for path in clean})
    order = generator.permutation(sorted(clean)).tolist()
    taken = iter(order)
    planted = {}
    planted["copy"] = {}
    for i in range(COPIES):
        path = next(taken)
        person = path.split("/")[0]
        # Half of them under another person's name.
        home = person if i % 2 else people[(people.index(person) + 1) % len(people)]
        twin = f"{home}/copy{i}.png"
        shutil.copyfile(folder / path, folder / twin)
        planted["copy"][twin] = path
    planted["near_copy"] = {}
    for i in range(NEAR):
        path = next(taken)
        picture, options = near(Image.open(folder / path).convert("RGB"), i % 4)
        twin = f"{path.split('/')[0]}/near{i}.{options['format'].lower()}"
        picture.save(folder / twin, **options)
        planted["near_copy"][twin] = path
    planted["mislabel"] = {}
    for i in range(SWAPPED):
        path = next(taken)
        person = path.split("/")[0]
        home = people[(people.index(person) + 1 + i % (len(people) - 1)) % len(people)]
        goal = f"{home}/swapped{i}.png"
        (folder / path).rename(folder / goal)
        planted["mislabel"][goal] = path
    planted["unreadable"] = {}
    for i in range(BROKEN):
        path = next(taken)
        data = (folder / path).read_bytes()
        goal = f"{path.split('/')[0]}/broken{i}.png"
        kinds = (data[: len(data) // 2], b"", b"not a picture", data[:20] + b"\0" * 400, data[:-80])
        (folder / goal).write_bytes(kinds[i % len(kinds)])
        planted["unreadable"][goal] = path
    return planted


def rows_of(source, home, seeing, *, aligned):
    prepare(source, home, seeing, aligned=aligned)
    return {row.path: row for row in manifest.read(home / manifest.NAME)}


def flagged(rows, code):
    return {path for path, row in rows.items() if row.code == code}


def pair_of(row):
    return frozenset((row.path, row.twin))


def score(rows, before, planted):
    """(found, planted, flagged anew by mistake) of each kind."""
    result = {}
    # A copy of a copy is either kind of copy: what matters is that one of each pair goes.
    dropped = {pair_of(row) for row in rows.values() if row.twin}
    known = {pair_of(row) for row in before.values() if row.twin}
    twins = {frozenset(pair) for kind in ("copy", "near_copy") for pair in planted[kind].items()}
    for kind in ("copy", "near_copy"):
        pairs = [frozenset(pair) for pair in planted[kind].items()]
        own = {pair_of(rows[path]) for path in flagged(rows, kind)}
        gone = sum(
            pair in dropped or any(rows[path].status is Status.DROP for path in pair)
            for pair in pairs
        )
        result[kind] = (gone, len(pairs), len(own - twins - known))
    foreign = {
        path
        for path, original in planted["copy"].items()
        if path.split("/")[0] != original.split("/")[0]
    }
    for kind in ("mislabel", "unreadable"):
        own = flagged(rows, kind) - foreign
        found = own & planted[kind].keys()
        result[kind] = (len(found), len(planted[kind]), len(own - found - flagged(before, kind)))
    doubted = (flagged(rows, "stray") | flagged(rows, "mislabel")) - foreign
    known_doubts = flagged(before, "stray") | flagged(before, "mislabel")
    found = doubted & planted["mislabel"].keys()
    result["mislabel or stray"] = (
        len(found),
        len(planted["mislabel"]),
        len(doubted - found - known_doubts),
    )
    return result


def compose(celebrities, clean, folder, generator):
    """Photos of one face, and some with a second, larger one; returns where the own face is."""
    people = sorted({path.split("/")[0] for path in clean})
    of = {name: [path for path in sorted(clean) if path.startswith(f"{name}/")] for name in people}
    places = {}
    for k in range(PAIRS):
        person, other = people[k % len(people)], people[(k + 3) % len(people)]
        (folder / person).mkdir(parents=True, exist_ok=True)
        own = generator.choice(of[person], FACES_EACH + 1, replace=False).tolist()
        for i, path in enumerate(own):
            photo = Image.new("RGB", (900, 600), (90, 100, 110))
            face = Image.open(celebrities / path).convert("RGB").resize((180, 180))
            photo.paste(face, (650, 200))
            if i == FACES_EACH:
                larger = Image.open(celebrities / str(generator.choice(of[other])))
                photo.paste(larger.convert("RGB").resize((400, 400)), (60, 80))
                places[f"{person}/pair.jpg"] = 180
            photo.save(folder / person / ("pair.jpg" if i == FACES_EACH else f"{i}.jpg"))
    return places


def two_faces(celebrities, clean, folder, home, seeing, generator):
    pairs = compose(celebrities, clean, folder, generator)
    rows = rows_of(folder, home, seeing, aligned=False)
    seen = {path: rows[path] for path in pairs if rows[path].faces > 1}
    # Both faces fill about the same share of their crop: the own one's box is less than half as
    # wide as the other's.
    right = sum(row.size_px < 1.2 * side for path, side in pairs.items() for row in [rows[path]])
    several = flagged(rows, "several_faces")
    return {
        "pairs": len(pairs),
        "both faces found": len(seen),
        "right face chosen": right,
        "kept": sum(rows[path].kept for path in pairs),
        "called several": len(several & pairs.keys()),
        "called several by mistake": len(several - pairs.keys()),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("celebrities", type=Path)
    parser.add_argument("--per-person", type=int, default=0, help="Crops of each person; 0 is all.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    threads.configure()
    generator = np.random.default_rng(arguments.seed)
    seeing = tools.load()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "photos"
        for person in sorted(arguments.celebrities.iterdir()):
            (folder / person.name).mkdir(parents=True)
            for path in sorted(person.iterdir())[: arguments.per_person or None]:
                shutil.copyfile(path, folder / person.name / path.name)
        home = Path(scratch) / "crops"
        before = rows_of(folder, home, seeing, aligned=True)
        clean = {path for path, row in before.items() if row.code == ""}
        # Neither is a photo clean that others were dropped for.
        clean -= {row.twin for row in before.values()}
        composed = two_faces(
            folder, clean, Path(scratch) / "pairs", Path(scratch) / "pairs-out", seeing, generator
        )
        planted = plant(folder, clean, generator)
        after = rows_of(folder, home, seeing, aligned=True)
    scores = score(after, before, planted)
    table = Table("planted", "found", "recall", "flagged by mistake", "precision")
    record = {}
    for kind, (found, count, wrong) in scores.items():
        recall, precision = found / count, found / max(1, found + wrong)
        table.add_row(
            f"{count} {kind}", str(found), f"{recall:.2f}", str(wrong), f"{precision:.2f}"
        )
        record[kind] = {"recall": recall, "precision": precision, "found": found, "wrong": wrong}
    right = composed["right face chosen"]
    chosen = right + composed["called several by mistake"]
    table.add_row(
        f"{PAIRS} second, larger face",
        str(right),
        f"{right / PAIRS:.2f}",
        str(composed["called several by mistake"]),
        f"{right / max(1, chosen):.2f}",
    )
    record["second face"] = composed
    record["in the data before"] = dict(Counter(str(row.code) for row in before.values()))
    record["together"] = {
        kind: sum(after[a].group == after[b].group for a, b in planted[kind].items())
        for kind in ("copy", "near_copy")
    }
    record["near duplicates missed"] = [
        f"{path} of {original}"
        for path, original in planted["near_copy"].items()
        if after[path].kept and after[original].kept
    ]
    record["of swapped labels called"] = dict(
        Counter(str(after[path].code) for path in planted["mislabel"])
    )
    Console().print(table)
    print(json.dumps(record, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
