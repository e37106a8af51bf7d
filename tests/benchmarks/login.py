"""A login, played with any people's photos: who is let in that should not be, and who is not.

    uv run python -m tests.benchmarks.login ../shared/data/photos/people --json
    uv run python -m tests.benchmarks.login ../shared/data/celebrities --aligned --crossfit --json

Every folder given has a folder per person. Photos are prepared as for training (the person's own
face is the one that agrees with their other photos; copies count once) and must pass the gates of
the bot, as far as they are measured. Then everybody enrolls with some photos and is verified with
others, and everybody tries to get in as everybody else: through `engine.decision.decide`, with the
bundle's shipped calibration and the numbers of photos that it advises. Photos of one trial are
different photos, and near-duplicates never stand on both sides.

Rates come with one-sided 95 % bounds: the looser of Clopper and Pearson's, which counts no more
trials than could be made without the same two sets of photos meeting twice, and the bootstrap over
people. JSON goes to standard output, tables and progress to standard error.
"""

import argparse
import asyncio
import json
import random
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from bot.login import liveness
from bot.sandbox import rehearsal
from bot.sandbox.performer import Portrait, perform
from engine import bundle, decision, threads
from engine.client import EmbeddedEngine
from engine.login_gates import GATES
from engine.pipeline import Pipeline
from engine.settings import Settings
from training import tools
from training.console import progress
from training.datasets import data, facing, probes
from training.measure import login, metrics, plots, verification

SHOWN = [(k, m) for k in (1, 3, 5) for m in (1, 2, 3)]
FEWEST_PEOPLE = 5
MOST_TRIALS = 100_000
FOLDS = 6
DOUBTED = ("mislabel", "stray")

console = Console(stderr=True, width=120)


def own_gates(aligned):
    """The bot's gates as far as a manifest tells; the size of an aligned crop says nothing."""
    return login.ALIGNED_GATES if aligned else GATES


def folded(name):
    return unicodedata.normalize("NFC", name).replace("_", " ").strip().casefold()


def read(folders, eyes, aligned):
    """Everybody's faces: (crowd of all, rows, pictures' folder, names, whether doubted, counts)."""
    vectors, names, groups, rows, homes, doubted = [], [], [], [], [], []
    facings, frontal, turned = [], [], []
    left_out, twins = Counter(), 0
    for folder in folders:
        found = probes.of(folder, lambda: eyes, aligned=aligned)
        with progress(f"Embedding {found.faces.name}", len(found.faces)) as advance:
            made = data.vectors(found.faces, eyes.embedder, advance)
        with progress("Looking where faces look", len(found.faces)) as advance:
            poses = facing.poses(found.faces, eyes.detector, advance)
        ahead, aside = login.taken(found.faces, poses, own_gates(aligned))
        codes = [row.code for row in found.faces.rows]
        left_out.update(found.faces.dropped)
        left_out.update(code for code, copy in zip(codes, found.copy, strict=True) if copy)
        for i in np.flatnonzero(~found.copy):
            row = found.faces.rows[i]
            vectors.append(made[i])
            names.append(folded(found.faces.people[found.faces.owner[i]]))
            groups.append(twins + found.faces.group[i] if row.group >= 0 else -len(groups) - 1)
            rows.append(row)
            homes.append(found.faces.home)
            doubted.append(found.doubted[i])
            facings.append(poses[i])
            frontal.append(ahead[i])
            turned.append(aside[i])
        twins += int(found.faces.group.max(initial=0)) + 1
    people, owner = np.unique(names, return_inverse=True)
    return {
        "vectors": np.array(vectors, np.float32),
        "owner": owner.astype(np.int64),
        "group": np.array(groups, np.int64),
        "rows": rows,
        "homes": homes,
        "people": people.tolist(),
        "doubted": np.array(doubted, bool),
        "poses": np.array(facings, float).reshape(-1, 2),
        "frontal": np.array(frontal, bool),
        "turned": np.array(turned, bool),
        "left_out": left_out,
    }


def crowd(everybody, kept, gated):
    ahead = everybody["frontal"] if gated else np.ones(len(kept), bool)
    return login.LoginFaces(
        everybody["vectors"],
        everybody["owner"],
        everybody["group"],
        ahead & kept,
        everybody["turned"] & kept,
    )


def enough(crowd, templates, probes):
    """How many people have photos for a trial of their own."""
    photos = [
        len(np.unique(crowd.group[(crowd.owner == person) & crowd.frontal]))
        for person in range(crowd.people)
    ]
    return sum(count >= templates + probes for count in photos)


class Tally:
    """What became of the trials through `decide`."""

    def __init__(self):
        self.genuine, self.whose = [], []
        self.stranger, self.victim, self.impostor = [], [], []
        self.own_sets = self.sets = 0
        self.rows, self.row_victim, self.row_impostor, self.sittings = [], [], [], 0

    def add(self, crowd, calibration, people, generator, k, m):
        """Play with a crowd; of its people only those given, as the calibration knows the rest."""
        table = login.LoginSimulation(crowd, [(k, m)], int(generator.integers(2**31)))
        orders = {person: table.order(person) for person in people}
        able = {person: order for person, order in orders.items() if order.shape[1] >= k}
        a_draw = sum(o.shape[1] // m for o in orders.values()) * max(1, len(able) - 1)
        draws = max(1, min(next(iter(orders.values())).shape[0], MOST_TRIALS // max(1, a_draw)))
        share = min(1.0, MOST_TRIALS / max(1, a_draw))
        enrolled = np.array([orders[person].shape[1] // k for person in people])
        asked = np.array([orders[person].shape[1] // m for person in people])
        own = sum((o.shape[1] // k) * max(0, (o.shape[1] - k) // m) for o in orders.values())
        played = [len(self.genuine), len(self.stranger), len(self.rows)]
        with progress("Playing logins", draws * len(able)) as advance:
            for draw in range(draws):
                for done, (victim, order) in enumerate(able.items(), 1):
                    templates = crowd.vectors[order[draw, :k]]

                    def accepted(chosen, templates=templates):
                        fresh = crowd.vectors[chosen]
                        return decision.decide(
                            calibration, decision.PHOTO, templates, fresh
                        ).accepted

                    for chosen in sets(order[draw, k:], m):
                        self.genuine.append(accepted(chosen))
                        self.whose.append(victim)
                    for person in people:
                        if person == victim or generator.random() > share:
                            continue
                        tried = [accepted(chosen) for chosen in sets(orders[person][draw], m)]
                        self.stranger += tried
                        self.victim += [victim] * len(tried)
                        self.impostor += [person] * len(tried)
                        for row in sets(np.array(tried, bool), login.ATTEMPTS):
                            self.rows.append(bool(row.any()))
                            self.row_victim.append(victim)
                            self.row_impostor.append(person)
                    advance(draw * len(able) + done)
        self.own_sets += min(len(self.genuine) - played[0], own)
        self.sets += min(len(self.stranger) - played[1], met(enrolled, asked))
        in_rows = met(enrolled, asked // login.ATTEMPTS)
        self.sittings += min(len(self.rows) - played[2], in_rows)

    def figures(self):
        accepted = np.array(self.genuine, bool)
        own = metrics.rate(~accepted, np.array(self.whose)) if len(accepted) else None
        count = max(1, self.own_sets)
        found = {
            "people": len(set(self.whose) | set(self.victim) | set(self.impostor)),
            "people_verified": len(set(self.whose)),
            "genuine": len(accepted),
            "genuine_distinct": self.own_sets,
            "impostor": len(self.stranger),
            "impostor_distinct": self.sets,
            "false_non_matches": int((~accepted).sum()),
            "false_matches": int(np.sum(self.stranger)),
            "fnmr": None if own is None else own.value,
            "fnmr_upper95": None
            if own is None
            else max(own.upper_95, metrics.clopper_pearson(own.value * count, count, 0.9)[1]),
        }
        found["fmr"], found["fmr_upper95"] = bounded(
            self.stranger, self.victim, self.impostor, self.sets
        )
        found["five_attempts"] = len(self.rows)
        found["fmr_five_attempts"], found["fmr_five_attempts_upper95"] = bounded(
            self.rows, self.row_victim, self.row_impostor, self.sittings
        )
        return found


def bounded(hits, victim, impostor, count):
    """A share and its upper bound; none where there is no trial."""
    if not hits or not count:
        return None, None
    tried = login.ImpostorTries(np.array(hits, float), np.array(victim), np.array(impostor), count)
    return tried.rate(0.5), login.Bounds(tried).upper(0.5)


def sets(chosen, size):
    return [chosen[i : i + size] for i in range(0, len(chosen) - size + 1, size)]


def met(enrolled, asked):
    return int(enrolled.sum() * asked.sum() - (enrolled * asked).sum())


def grid(crowd, calibration):
    """Every number of templates and probes at the shipped thresholds, and DET curves."""
    rows, curves = [], {}
    table = login.LoginSimulation(crowd, SHOWN, 0, calibration.centre)
    pairs = crowd.people * (crowd.people - 1) // 2
    with progress("Trying other numbers of photos", pairs) as advance:
        played = table.play(advance)
    for trials in played:
        k, m = trials.templates, trials.probes
        name = f"{k} enrolled, {m} fresh"
        if not len(trials.genuine) or not len(trials.stranger):
            continue
        try:
            point = calibration.point(decision.PHOTO, k, m)
        except ValueError:
            point = None
        score = np.concatenate([trials.genuine, trials.stranger]).astype(np.float32)
        same = np.arange(len(score)) < len(trials.genuine)
        nobody = np.zeros(len(score), np.int64)
        if m in (1, calibration.probes):  # more lines than colours tell nothing
            curves[name] = verification.curve(verification.Pairs(score, same, nobody, nobody))
        if point is None or (point.templates, point.probes) != (k, m):
            continue
        passed = [scores >= point.threshold for scores in (trials.genuine, trials.stranger)]
        fmr, upper = bounded(
            passed[1].tolist(), trials.victim.tolist(), trials.impostor.tolist(), trials.sets
        )
        rows.append(
            {
                "templates": k,
                "probes": m,
                "threshold": point.threshold,
                "genuine": len(passed[0]),
                "genuine_distinct": trials.own_sets,
                "impostor": len(passed[1]),
                "impostor_distinct": trials.sets,
                "false_non_matches": int((~passed[0]).sum()),
                "false_matches": int(passed[1].sum()),
                "fnmr": float(1 - passed[0].mean()),
                "fmr": fmr,
                "fmr_upper95": upper,
            }
        )
    return rows, curves


# --- Clips ---


async def clips(everybody, crowd, calibration, settings, count, k, seed):
    """Generated clips of people who are who they say, and the same ones as somebody else.

    Photos whose head does not follow when it is moved make no clips, and are counted.
    """
    generator = np.random.default_rng(seed)
    lot = random.Random(seed)
    table = login.LoginSimulation(crowd, [(k, 1)], seed)
    orders = {p: table.order(p)[0] for p in range(crowd.people)}
    able = {p: order for p, order in orders.items() if len(order) > k}
    # A head is turned from where it is on the photo: it must look ahead there.
    yaw, pitch = everybody["poses"].T
    ahead = (np.abs(yaw) <= GATES.yaw) & (pitch >= GATES.pitch[0]) & (pitch <= GATES.pitch[1])
    wanted = [(p, i) for p, order in able.items() for i in order[k:] if ahead[i]]
    generator.shuffle(wanted)
    failures, genuine, whose, hits, victims, impostors = Counter(), [], [], [], [], []
    filmed = stiff = 0
    async with EmbeddedEngine(Pipeline.from_settings(settings)) as engine:
        with progress("Performing and watching clips", min(count, len(wanted))) as advance:
            for person, face in wanted:
                if filmed == count:
                    break
                row = everybody["rows"][face]
                picture = np.asarray(Image.open(everybody["homes"][face] / row.crop).convert("RGB"))
                portrait = Portrait.of(picture, row.landmarks)
                track = await engine.track(await asyncio.to_thread(rehearsal.clip, portrait))
                portrait = rehearsal.rehearsed(portrait, track)
                if portrait is None:
                    stiff += 1
                    continue
                challenge = liveness.draw(lot)
                film = await asyncio.to_thread(perform, portrait, challenge, seed=int(face))
                watched = liveness.judge(challenge, await engine.track(film))
                filmed += 1
                advance(filmed)
                if isinstance(watched, liveness.Failure):
                    failures[watched.reason.value] += 1
                    continue
                neutral = np.array([one.embedding for one in watched.neutral])
                turns = [np.array([one.embedding for one in turn]) for turn in watched.turns]
                for victim, order in able.items():
                    templates = crowd.vectors[order[:k]]
                    said = decision.decide(calibration, decision.VIDEO, templates, neutral, turns)
                    if victim == person:
                        genuine.append(said.accepted)
                        whose.append(person)
                        if not said.accepted:
                            failures[said.reason] += 1
                    else:
                        hits.append(said.accepted)
                        victims.append(victim)
                        impostors.append(person)
    fmr, upper = bounded(hits, victims, impostors, len(hits))
    return {
        "templates": k,
        "clips": filmed,
        "photos_that_do_not_follow": stiff,
        "judged_live": len(genuine),
        "accepted": int(np.sum(genuine)),
        "fnmr_of_judged_live": float(1 - np.mean(genuine)) if genuine else None,
        "refused_of_all": 1 - float(np.sum(genuine)) / filmed if filmed else None,
        "failures": dict(failures),
        "impostor": len(hits),
        "fmr": fmr,
        "fmr_upper95": upper,
    }


# --- Everything ---


def crossfit(crowd, form, seed, k, m):
    """Calibrate on five sixths of the people, try the rest; everybody is tried once."""
    tally, thresholds = Tally(), []
    generator = np.random.default_rng(seed)
    fold = generator.permutation(crowd.people) % FOLDS
    for number in range(FOLDS):
        others = np.flatnonzero(fold != number).tolist()
        with progress(f"Calibrating without fold {number + 1}", None):
            found = login.measure(crowd.part(others), form, grid=[(k, m)], seed=seed)
        if found is None:
            raise SystemExit("Too few people or photos to calibrate on the others.")
        thresholds.append(found.point(decision.PHOTO, k, m).threshold)
        out = np.flatnonzero(fold == number).tolist()
        tally.add(crowd, found, out, generator, k, m)
    return {"thresholds": thresholds} | tally.figures()


def quoted(errors, trials, digits):
    """A rate, where there are errors enough to speak of one."""
    if errors < metrics.ERRORS_TO_MENTION:
        return f"{errors} of {trials:,}"
    return f"{errors / trials:.{digits}%}"


def show(result):
    table = Table("enrolled", "fresh", "threshold", "refused", "let in", "at most (95 %)")
    table.add_column("trials without the same sets twice")
    for row in result["by_photos"]:
        table.add_row(
            str(row["templates"]),
            str(row["probes"]),
            f"{row['threshold']:.3f}",
            quoted(row["false_non_matches"], row["genuine"], 2),
            quoted(row["false_matches"], row["impostor"], 4),
            f"{row['fmr_upper95']:.4%}",
            f"{row['genuine_distinct']:,} own, {row['impostor_distinct']:,} of strangers",
        )
    console.print(table)
    for note in result["notes"]:
        console.print(note)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--aligned", action="store_true", help="crops on the ArcFace template")
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    parser.add_argument("--bundle", default="celebrities", help="whose calibration")
    parser.add_argument("--crossfit", action="store_true", help="calibrate on the other people")
    parser.add_argument("--video", type=int, nargs="?", const=60, metavar="CLIPS")
    parser.add_argument("--det", type=Path, metavar="FILE.png", help="draw DET curves")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    threads.configure()
    chosen = bundle.load(arguments.bundle)
    calibration = chosen.manifest.login
    if calibration is None:
        raise SystemExit(
            f"{chosen.name} has no thresholds for a login. Measure them: python -m training "
            f"calibrate {arguments.bundle} DIR --login"
        )
    eyes = tools.load(chosen.embedder.id)
    everybody = read(arguments.folders, eyes, arguments.aligned)
    result = measure(everybody, chosen, calibration, eyes, arguments)
    show(result)
    if arguments.json:
        print(json.dumps(result, indent=1))


def measure(everybody, chosen, calibration, eyes, arguments):
    k, m = calibration.captures, calibration.probes
    notes = []
    doubtful = np.array([row.code in DOUBTED for row in everybody["rows"]]) & everybody["doubted"]
    gated = True
    people = crowd(everybody, ~doubtful, gated)
    if enough(people, k, m) < FEWEST_PEOPLE:
        notes.append(
            f"Only {enough(people, k, m)} people have {k + m} photos that pass the bot's gates, so "
            "all photos count, good or not: a bot would have asked for better ones."
        )
        gated = False
        people = crowd(everybody, ~doubtful, gated)
    if doubtful.any():
        notes.append(
            f"{int(doubtful.sum())} photos are left out as likely somebody else's (or odd ones of "
            "their person); with_doubted has them."
        )
    known = probes.number_of(everybody["people"], chosen.manifest.people) >= 0
    if known.any():
        notes.append(
            f"{int(known.sum())} of these people are among those whom {chosen.name} was calibrated "
            "on: other people's figures may differ. --crossfit calibrates on the others each time."
        )
    generator = np.random.default_rng(arguments.seed)
    tally = Tally()
    tally.add(people, calibration, list(range(people.people)), generator, k, m)
    point = calibration.point(decision.PHOTO, k, m)
    result = tally.figures() | {
        "threshold": point.threshold,
        "templates": k,
        "probes": m,
        "version": calibration.version,
        "bundle": chosen.id,
        "gates": "bot" if gated else "none",
        "photos": int(people.frontal.sum()),
        "photos_read": len(everybody["rows"]),
        "left_out": dict(everybody["left_out"]),
        "calibrated_on_some_of_them": bool(known.any()),
    }
    if doubtful.any():
        other = Tally()
        other.add(
            crowd(everybody, np.ones(len(doubtful), bool), gated),
            calibration,
            list(range(people.people)),
            generator,
            k,
            m,
        )
        found = other.figures()
        result["with_doubted"] = {key: found[key] for key in ("genuine", "fnmr", "impostor", "fmr")}
    if arguments.crossfit:
        form = eyes.embedder.specification
        result["crossfit"] = crossfit(people, form, arguments.seed, k, m)
    result["by_photos"], curves = grid(people, calibration)
    if arguments.det:
        plots.save(plots.det(curves), arguments.det)
    if arguments.video:
        settings = Settings(engine_device="cpu", engine_bundle=arguments.bundle)
        result["video"] = asyncio.run(
            clips(everybody, people, calibration, settings, arguments.video, k, arguments.seed)
        )
    return result | {"notes": notes}


if __name__ == "__main__":
    main()
