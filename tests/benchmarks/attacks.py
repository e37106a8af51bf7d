"""How often a video login is fooled, per kind of attack, and how often it refuses who is there.

    uv run python -m tests.benchmarks.attacks ../shared/data/photos/people --tries 200 --json

Frames are generated from photos (`bot.sandbox.performer`), go through a real encoder, the engine's
decoder, detector and embedder (`engine.track`), and are judged by `bot.login.liveness` alone and,
where the bundle carries a login's calibration, by the whole decision as well: against templates of
the photo's person, enrolled from that person's other photos.

Genuine tries are filmed frame by frame, half of them as phones film, 30 frames a second and at any
pace. So that two cores can do the rest in an hour, most attacks share frames. Of each photo a stock
of frames is filmed at known angles (heads, flat and bent prints, two people), encoded, tracked; a
try is a script (who looks where, ten times a second, drawn anew for each try) that shows for each
moment a frame of about that angle from the stock, drawn by lot, at the script's place, roll and
size. How far a head surely turned (`engine.vision.parallax`) cannot be measured between such
frames: the script's own angles are taken, so that a composed attack is never refused for holding
still. `--whole` of the attacks of each kind are filmed like genuine tries, and are reported by
themselves as well; films that are cut and slide shows (`bot.sandbox.slides`) always are.

Photos that clips can be made from show one face, large, sharp and frontal, and their heads follow
when they are moved: each is rehearsed first (`bot.sandbox.rehearsal`), to move as far as the engine
must see it go, and those that do not follow in all four directions are left out and counted. So
genuine clips tell whether steps of 34 degrees or more (nods of 21) are read right whatever else
moves, not how far people turn their heads. People fall into two parts by their place in the folder,
so that thresholds can be set on the even ones (`--part calibration`) and reported on the odd ones.
Bounds are Clopper and Pearson's, two-sided 95 %; tries share people, so that they are somewhat too
narrow.

Two rows cost no clip: "any_guess" holds every genuine clip against all 108 challenges, which is
exactly what a guess is worth; "stranger" is somebody who honestly does the challenge but claims to
be somebody else.
"""

import argparse
import asyncio
import collections
import hashlib
import json
import math
import pickle
import random
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy.stats import beta

from bot.login import liveness
from bot.login.liveness import Failure, Performance, Step
from bot.sandbox import rehearsal
from bot.sandbox.performer import (
    NEEDS_OTHER,
    PER_EYE_DISTANCE_PX,
    SIDE_PX,
    Attack,
    Motion,
    Portrait,
    Print,
    Script,
    bent,
    encode,
    film,
    perform,
    transcode,
    write,
)
from engine import decision, errors
from engine.client import EmbeddedEngine
from engine.media import image
from engine.settings import Settings
from engine.types import Track
from engine.vision import parallax
from tests.benchmarks.accuracy import COPY, signature, tiny
from tests.bot import slides

GENUINE = "genuine"
SHOWS = {f"{count}_stills_{edit}": (count, edit) for edit in slides.Edit for count in slides.COUNTS}
KINDS = (GENUINE, *(attack.value for attack in Attack), *SHOWS)
FILMED = frozenset((GENUINE, Attack.CUT, Attack.CUT_ALIGNED, *SHOWS))
"""Kinds that are filmed frame by frame: they are judged by what changes from frame to frame."""
FRAMES_PER_S = 10
ENROLLED = 5
"""Photos of each person that are read, at most."""
LOOSE = 3.0
"""How much around a face a portrait keeps, in the face's sizes."""
LOOSE_LIMITS = replace(
    liveness.LIMITS,
    steady_frames=1,
    turned_mean_deg=0.0,
    turned_held_deg=0.0,
    rest_roll_deg=math.inf,
    rest_growth=math.inf,
)
"""Without the rules against pictures shown one after the other and films that are joined."""
FLAT = (Attack.STILL, Attack.MOVED, Attack.TILTED)


@dataclass(frozen=True)
class Subject:
    """A photo that clips are made of, and whose."""

    person: str
    portrait: Portrait
    vector: np.ndarray
    signature: np.ndarray


@dataclass(frozen=True)
class Stock:
    """Frames of known angles, as the engine saw them."""

    angles: np.ndarray  # (n, 3) yaw, pitch, roll in degrees
    frames: tuple
    embedded: np.ndarray  # (n,)

    def near(self, angles, lot, embedded):
        """A frame of about these angles, and its roll."""
        apart = (((self.angles - angles) / (5.0, 4.0, 10.0)) ** 2).sum(axis=1)
        if embedded:
            apart = np.where(self.embedded, apart, np.inf)
        best = np.argsort(apart)[:3]
        chosen = lot.choice([k for k in best if apart[k] <= apart[best[0]] + 1.0])
        return self.frames[chosen], float(self.angles[chosen, 2])


@dataclass(frozen=True)
class Try:
    """One clip, as the engine saw it."""

    kind: str
    challenge: str
    subject: int
    whole: bool
    track: object


def frontal(face):
    quality, pose = face.quality, face.pose
    return (
        face.probability >= 0.99
        and quality.size_px >= 90
        and quality.blur <= 0.63
        and 0.2 <= quality.exposure <= 0.8
        and abs(pose.yaw) <= 0.1
        and 0.45 <= pose.pitch <= 0.66
    )


def belongs(number, part):
    return part == "all" or (number % 2 == 0) == (part == "calibration")


async def read(engine, folder, part):
    """Subjects of a part of the people, and everybody's embeddings for templates."""
    subjects, enrolled = [], collections.defaultdict(list)
    homes = sorted(path for path in folder.iterdir() if path.is_dir())
    for number, home in enumerate(homes):
        if not belongs(number, part):
            continue
        for path in sorted(path for path in home.iterdir() if path.is_file()):
            try:
                photo = image.decode(path.read_bytes())
                analysis = await engine.analyze(path.read_bytes(), top_k=1, embed=True)
            except errors.ImageError:
                continue
            faces = [face for face in analysis.faces if face.quality.size_px >= 40]
            if len(faces) != 1 or not frontal(faces[0]):
                continue
            (face,) = faces
            x1, y1, x2, y2 = face.box
            chip = np.asarray(photo.crop((int(x1), int(y1), int(x2), int(y2))))
            own = signature(tiny(chip)[None])[0]
            if any(own @ other.signature > COPY for other in subjects):
                continue
            if len(enrolled[home.name]) == ENROLLED:
                break
            enrolled[home.name].append(len(subjects))
            subjects.append(Subject(home.name, around(photo, face), face.embedding, own))
    return subjects, enrolled


def around(photo, face):
    """The face and what is around it; a whole photo would only slow the way to other processes."""
    x1, y1, x2, y2 = face.box
    middle, reach = ((x1 + x2) / 2, (y1 + y2) / 2), LOOSE * max(x2 - x1, y2 - y1) / 2
    left, top = (max(0, int(value - reach)) for value in middle)
    right = min(photo.width, int(middle[0] + reach) + 1)
    bottom = min(photo.height, int(middle[1] + reach) + 1)
    pixels = np.asarray(photo.crop((left, top, right, bottom)))
    return Portrait(pixels, np.asarray(face.landmarks) - (left, top))


# --- Frames in stock ---


def head_angles(lot, reach):
    """Along the four ways a head goes, denser where it matters, and around the corners."""
    angles = []
    for step, (across, along) in (
        (Step.SIDE, (-1, 0)),
        (Step.OTHER_SIDE, (1, 0)),
        (Step.UP, (0, -1)),
        (Step.DOWN, (0, 1)),
    ):
        least, most = reach[step]
        steps = [least * share for share in (0.2, 0.4, 0.6, 0.75, 0.9)]
        for degrees in (*steps, *np.linspace(least, most + 1, 4)):
            aside = lot.gauss(0, 1.8)
            angles.append(
                (across * degrees + aside * abs(along), along * degrees + aside * abs(across))
            )
    angles += [(lot.gauss(0, 1.0), lot.gauss(0, 1.0)) for _ in range(8)]
    for k in range(8):
        across, along = math.cos(math.pi * (k + 0.5) / 4), math.sin(math.pi * (k + 0.5) / 4)
        yaw = reach[Step.SIDE if across < 0 else Step.OTHER_SIDE][0] * across
        angles.append((yaw, reach[Step.UP if along < 0 else Step.DOWN][0] * along))
    return [(yaw, pitch, lot.gauss(0, 3)) for yaw, pitch in angles]


def print_angles(lot):
    """A print, tilted along the four ways."""
    angles = [(sign * step, 0.0) for step in (25, 45, 60) for sign in (-1, 1)]
    angles += [(0.0, sign * step) for step in (25, 45, 60) for sign in (-1, 1)]
    angles += [(lot.gauss(0, 2.0), lot.gauss(0, 2.0)) for _ in range(4)]
    return [(yaw, pitch, lot.gauss(0, 3)) for yaw, pitch in angles]


def stills(angles, paper=None, *, beside=False):
    """A script that shows each of some angles once."""
    count, still = len(angles), np.zeros(len(angles))
    yaw, pitch, roll = np.array(angles, float).T
    motion = Motion(yaw, pitch, roll, still, still, still + 1)
    times = np.arange(count) / FRAMES_PER_S
    return Script(times, motion, paper, np.zeros(count, bool), beside)


def stocks_of(seed, reach):
    """What is filmed of each photo: name, script, whether encoded once more."""
    lot = random.Random(seed)

    def shuffled(angles):
        lot.shuffle(angles)  # every second frame is embedded: of all angles alike
        return angles

    rolls = [(lot.gauss(0, 3), lot.gauss(0, 3), roll) for roll in (-40.0, -20.0, 20.0, 40.0)]
    yield "head", stills(shuffled(head_angles(lot, reach))), False
    yield "flat", stills(shuffled(print_angles(lot) + rolls), Print()), False
    yield "bent", stills(shuffled(print_angles(lot)), bent(lot)), False
    yield "two", stills(shuffled(head_angles(lot, reach))[:4], beside=True), False
    yield "recoded", stills(shuffled(head_angles(lot, reach))), True


def shoot(portrait, other, script, recoded, seed):
    """A clip of a script, never a mirror's: pieces of it must fit together."""
    lot = random.Random(seed)
    frames = film(portrait, script, lot, other, flipped=False)
    clip = encode(frames, FRAMES_PER_S, quality=lot.uniform(22, 30))
    return transcode(clip, lot) if recoded else clip


def make(portrait, other, code, kind, seed, as_phones):
    """A whole clip; runs in a process of its own."""
    asked = liveness.Challenge.parse(code)
    rate = 30 if as_phones else FRAMES_PER_S
    if kind in SHOWS:
        count, edit = SHOWS[kind]
        return slides.show(
            portrait,
            asked,
            count=count,
            edit=edit,
            seed=seed,
            frames_per_s=rate,
            brisk=not as_phones,
        )
    return perform(
        portrait,
        asked,
        seed=seed,
        attack=None if kind == GENUINE else Attack(kind),
        other=other,
        frames_per_s=rate,
        brisk=not as_phones,
    )


async def tracked(engine, jobs, arguments, label):
    """The engine's tracks of clips that functions make, a few of them ahead, in order.

    Those that a run before this one kept are read instead. A track is kept under what its clip is
    made of, so that it never stands for another clip.
    """
    loop, ahead, tracks = asyncio.get_running_loop(), collections.deque(), []
    places = [arguments.keep and arguments.keep / f"{digest(job)}.pickle" for job in jobs]
    waiting = [
        job for job, place in zip(jobs, places, strict=True) if not (place and place.exists())
    ]
    waiting.reverse()
    with (
        ProcessPoolExecutor(arguments.workers) as pool,
        Progress(console=Console(stderr=True)) as progress,
    ):
        for place in progress.track(places, description=label):
            if place and place.exists():
                tracks.append(pickle.loads(place.read_bytes()))
                continue
            while waiting and len(ahead) <= 2 * arguments.workers:
                ahead.append(loop.run_in_executor(pool, *waiting.pop()))
            tracks.append(await engine.track(await ahead.popleft()))
            if place:
                part = place.with_suffix(".part")
                part.write_bytes(pickle.dumps(tracks[-1]))
                part.replace(place)
    return tracks


async def rehearse(engine, subjects, enrolled, most):
    """Photos that clips can be made of, with their reach, and how many do not follow."""
    filmed, stiff = [], 0
    for own in enrolled.values():
        found = 0
        for number in own:
            if found == most:
                break
            portrait = subjects[number].portrait
            track = await engine.track(await asyncio.to_thread(rehearsal.clip, portrait))
            portrait = rehearsal.rehearsed(portrait, track)
            if portrait is None:
                stiff += 1
                continue
            found += 1
            subjects[number] = replace(subjects[number], portrait=portrait)
            filmed.append(number)
    return filmed, stiff


def digest(job):
    """Of the function that makes a clip, and all that it is given."""
    return hashlib.sha256(pickle.dumps(job)).hexdigest()


async def stock_up(engine, subjects, filmed, arguments):
    """Everybody's frames, by photo and name."""
    lot, jobs, keys = random.Random(arguments.seed), [], []
    for place, number in enumerate(filmed):
        subject = subjects[number]
        others = [one.portrait for one in subjects if one.person != subject.person]
        lots = repr((arguments.seed, number))
        for name, script, recoded in stocks_of(lots, subject.portrait.reach):
            # What is encoded once more is a replay, and no replay passes: a few will do.
            if name == "recoded" and place % 4:
                continue
            other = lot.choice(others) if script.beside else None
            jobs.append((shoot, subject.portrait, other, script, recoded, lot.getrandbits(32)))
            keys.append((number, name, script.motion))
    stocks = {}
    tracks = await tracked(engine, jobs, arguments, "frames")
    for (number, name, motion), track in zip(keys, tracks, strict=True):
        angles = np.stack([motion.yaw, motion.pitch, motion.roll], axis=1)[: len(track.frames)]
        embedded = [one.face is not None and one.face.embedding is not None for one in track.frames]
        stocks[number, name] = Stock(angles, track.frames[: len(angles)], np.array(embedded))
    return stocks


# --- Tries ---


def stock_name(kind):
    if kind == GENUINE:
        return "head"
    attack = Attack(kind)
    if attack in FLAT:
        return "flat"
    if attack is Attack.BENT:
        return "bent"
    if attack is Attack.TWO_FACES:
        return "two"
    return "recoded" if attack is Attack.RECODED else "head"


def compose(script, own, other, lot):
    """A track of a script, out of frames in stock."""
    motion, frames = script.motion, []
    for index, time_s in enumerate(script.times):
        angles = (motion.yaw[index], motion.pitch[index], motion.roll[index])
        stock = other if script.by_other[index] else own
        shown, roll = stock.near(angles, lot, embedded=index % 2 == 0)
        place = motion.x[index], motion.y[index], motion.roll[index] - roll, motion.scale[index]
        face = shown.face and placed(shown.face, *map(float, place))
        if face and index % 2:
            face = replace(face, embedding=None)
        turned = None
        if index >= parallax.LAG:
            ways = (motion.yaw, motion.pitch)
            turned = tuple(abs(float(way[index] - way[index - parallax.LAG])) for way in ways)
        frames.append(replace(shown, time_s=float(time_s), face=face, turned_deg=turned))
    return Track(tuple(frames), SIDE_PX, SIDE_PX, frames[-1].time_s + 1 / FRAMES_PER_S, "")


def placed(face, x, y, roll, scale):
    """A face elsewhere in the picture, and larger or smaller; whose and where it looks stays."""
    middle, shift = SIDE_PX / 2, np.array([x, y]) * PER_EYE_DISTANCE_PX * scale
    box = tuple(((np.array(face.box) - middle) * scale + middle + np.tile(shift, 2)).tolist())
    c, s = math.cos(math.radians(roll)), math.sin(math.radians(roll))
    points = (np.array(face.landmarks) - middle) @ np.array([(c, s), (-s, c)]) * scale
    return replace(
        face,
        box=box,
        landmarks=tuple(map(tuple, (points + middle + shift).tolist())),
        quality=replace(face.quality, size_px=face.quality.size_px * scale),
    )


async def tries_of(engine, subjects, filmed, stocks, arguments):
    """All tries of all kinds."""
    lot = random.Random(arguments.seed)
    tries, jobs, planned = [], [], []
    recoded = [number for number, name in stocks if name == "recoded"]
    for kind in arguments.kinds:
        for number in range(arguments.tries):
            choices = recoded if kind == Attack.RECODED else filmed
            index = choices[number % len(choices)]
            others = [k for k in filmed if subjects[k].person != subjects[index].person]
            other, asked = lot.choice(others), liveness.draw(lot)
            if kind in FILMED or number < arguments.whole:
                portrait = subjects[other].portrait if kind in NEEDS_OTHER else None
                seed, as_phones = lot.getrandbits(32), number % 2 == 0
                own = subjects[index].portrait
                jobs.append((make, own, portrait, asked.code, kind, seed, as_phones))
                planned.append((kind, asked.code, index))
                continue
            attack = None if kind == GENUINE else Attack(kind)
            mover = subjects[other if attack is Attack.OTHER_TURNS else index].portrait
            script = write(asked, lot, mover.reach, attack=attack, frames_per_s=FRAMES_PER_S)
            own = stocks[index, stock_name(kind)]
            track = compose(script, own, stocks[other, "head"], lot)
            tries.append(Try(kind, asked.code, index, False, track))
    tracks = await tracked(engine, jobs, arguments, "clips")
    for (kind, code, index), track in zip(planned, tracks, strict=True):
        tries.append(Try(kind, code, index, True, track))
    return tries


# --- Judging ---


def interval(hits, count, level=0.95):
    """Clopper and Pearson's bounds on a share."""
    if not count:
        return [0.0, 1.0]
    low = beta.ppf((1 - level) / 2, hits, count - hits + 1) if hits else 0.0
    high = beta.ppf((1 + level) / 2, hits + 1, count - hits) if hits < count else 1.0
    return [round(float(low), 4), round(float(high), 4)]


def share(hits, count):
    return {
        "tries": count,
        "accepted": hits,
        "rate": round(hits / count, 4) if count else None,
        "interval_95": interval(hits, count),
    }


def templates(subjects, enrolled, person, without, count):
    """Embeddings of a person's other photos, as many as one enrolls; None where there are fewer."""
    own = [index for index in enrolled[person] if index != without]
    lot = random.Random(without)
    if len(own) < count:
        return None
    return np.stack([subjects[index].vector for index in lot.sample(own, count)])


def decides(calibration, enrolled_vectors, performance):
    """The whole decision."""
    return decision.decide(
        calibration,
        decision.VIDEO,
        enrolled_vectors,
        np.stack([face.embedding for face in performance.neutral]),
        [np.stack([face.embedding for face in turn]) for turn in performance.turns],
    )


def judge_all(tries, subjects, enrolled, calibration, limits=liveness.LIMITS):
    """Rows of the report by kind."""
    rows = {}
    count = calibration.captures if calibration else 0
    for kind in KINDS:
        own = [one for one in tries if one.kind == kind]
        if not own:
            continue
        judged = [liveness.judge(challenge(one), one.track, limits) for one in own]
        rows[kind] = row(own, judged, subjects, enrolled, calibration, count)
        loose = [liveness.judge(challenge(one), one.track, LOOSE_LIMITS) for one in own]
        accepted = sum(isinstance(result, Performance) for result in loose)
        rows[kind]["liveness_without_stillness_and_joints"] = share(accepted, len(own))
    genuine = [one for one in tries if one.kind == GENUINE]
    if genuine:
        rows[GENUINE] |= parts(genuine, subjects, limits)
        rows["any_guess"] = guesses(genuine, limits)
        if calibration:
            rows["stranger"] = strangers(genuine, subjects, enrolled, calibration, count, limits)
    return rows


def challenge(one):
    return liveness.Challenge.parse(one.challenge)


def row(own, judged, subjects, enrolled, calibration, count):
    passed = [isinstance(result, Performance) for result in judged]
    reasons = collections.Counter(
        result.reason.value for result in judged if isinstance(result, Failure)
    )
    whole = [ok for one, ok in zip(own, passed, strict=True) if one.whole]
    found = {
        "liveness": share(sum(passed), len(own)),
        "liveness_of_whole_clips": share(sum(whole), len(whole)),
        "refused_because": dict(reasons.most_common()),
        "mirrored": sum(isinstance(one, Performance) and one.mirrored for one in judged),
    }
    if calibration:
        said = []
        for one, result in zip(own, judged, strict=True):
            person = subjects[one.subject].person
            vectors = templates(subjects, enrolled, person, one.subject, count)
            if vectors is None:
                continue
            if isinstance(result, Failure):
                said.append("liveness")
            else:
                said.append(decides(calibration, vectors, result).reason)
        reasons = collections.Counter(said)
        found["whole"] = share(reasons["match"], len(said))
        found["whole_refused_because"] = {k: v for k, v in reasons.items() if k != "match"}
    return found


def parts(genuine, subjects, limits):
    """Genuine clips by photo, by light (exposure, from dark to bright), and by length."""
    counts = collections.defaultdict(lambda: collections.defaultdict(lambda: [0, 0]))
    for one in genuine:
        faces = [frame.face for frame in one.track.frames if frame.face is not None]
        light = statistics.median(face.quality.exposure for face in faces) if faces else 0.0
        keys = {
            "by_photo": f"{subjects[one.subject].person} {one.subject}",
            "by_light": f"{light:.1f}",
            "by_length": f"{one.track.duration_s // 3 * 3:.0f} s and more",
        }
        passed = isinstance(liveness.judge(challenge(one), one.track, limits), Performance)
        for name, key in keys.items():
            counts[name][key][0] += passed
            counts[name][key][1] += 1
    return {
        name: {key: share(*found) for key, found in sorted(own.items())}
        for name, own in counts.items()
    }


def guesses(genuine, limits):
    """Every genuine clip against every challenge."""
    hits = sum(
        isinstance(liveness.judge(asked, one.track, limits), Performance)
        for one in genuine
        for asked in liveness.every()
    )
    return {"liveness": share(hits, len(genuine) * len(liveness.every()))}


def strangers(genuine, subjects, enrolled, calibration, count, limits):
    """Every genuine clip against everybody else's templates."""
    hits = trials = 0
    for one in genuine:
        result = liveness.judge(challenge(one), one.track, limits)
        if isinstance(result, Failure):
            continue
        for person in enrolled:
            vectors = templates(subjects, enrolled, person, one.subject, count)
            if person == subjects[one.subject].person or vectors is None:
                continue
            trials += 1
            hits += decides(calibration, vectors, result).accepted
    return {"whole": share(hits, trials)}


# --- Telling ---


def show(rows):
    table = Table("kind", "tries", "liveness accepts", "95 %", "whole login accepts", "95 %")
    table.add_column("mostly refused because")
    for kind, found in rows.items():
        cells = [kind, str(found.get("liveness", found.get("whole"))["tries"])]
        for name in ("liveness", "whole"):
            part = found.get(name)
            if part is None or part["rate"] is None:
                cells += ["", ""]
                continue
            low, high = part["interval_95"]
            cells += [f"{part['rate']:.1%} ({part['accepted']})", f"{low:.1%} to {high:.1%}"]
        why = list(found.get("refused_because", {}).items())[:3]
        table.add_row(*cells, ", ".join(f"{reason} {times}" for reason, times in why))
    Console(stderr=True, width=150).print(table)


async def run(arguments):
    began = time.monotonic()
    async with await EmbeddedEngine.open(Settings(engine_device="cpu")) as engine:
        info = await engine.info()
        subjects, enrolled = await read(engine, arguments.folder, arguments.part)
        if arguments.celebrities:
            await add(engine, arguments, subjects, enrolled)
        if len(enrolled) < 2:
            raise SystemExit(
                f"{arguments.folder} needs photos of two people or more that show one large, "
                "sharp, frontal face each"
            )
        filmed, stiff = await rehearse(engine, subjects, enrolled, arguments.photos)
        composed = not FILMED.issuperset(arguments.kinds)
        stocks = await stock_up(engine, subjects, filmed, arguments) if composed else {}
        tries = await tries_of(engine, subjects, filmed, stocks, arguments)
    rows = judge_all(tries, subjects, enrolled, info.login)
    result = {
        "command": " ".join(sys.argv[1:]),
        "bundle": info.bundle,
        "embedder": info.embedder,
        "login": info.login.version if info.login else None,
        "part": arguments.part,
        "photos_filmed": len(filmed),
        "photos_that_do_not_follow": stiff,
        "photos_to_enroll_from": len(subjects),
        "people": len(enrolled),
        "tries_a_kind": arguments.tries,
        "whole_clips_an_attack": arguments.whole,
        "frames_in_stock": sum(len(stock.frames) for stock in stocks.values()),
        "seconds": round(time.monotonic() - began),
        "kinds": rows,
    }
    show(rows)
    if arguments.json:
        print(json.dumps(result, indent=1))


async def add(engine, arguments, subjects, enrolled):
    """More people, from crops that are aligned already; only the sharpest few of each."""
    homes = sorted(path for path in arguments.celebrities.iterdir() if path.is_dir())
    for number, home in enumerate(homes):
        if not belongs(number, arguments.part):
            continue
        found = []
        for path in sorted(home.iterdir())[:40]:
            analysis = await engine.analyze(path.read_bytes(), top_k=1, embed=True)
            if len(analysis.faces) == 1 and abs(analysis.faces[0].pose.yaw) <= 0.1:
                face = analysis.faces[0]
                photo = image.decode(path.read_bytes())
                found.append(
                    (face.quality.blur, path, Portrait.of(np.asarray(photo), face.landmarks), face)
                )
        found.sort(key=lambda entry: entry[0])
        for _, _, portrait, face in found[:ENROLLED]:
            enrolled[home.name].append(len(subjects))
            grey = signature(tiny(portrait.pixels)[None])[0]
            subjects.append(Subject(home.name, portrait, face.embedding, grey))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="a folder per person of ordinary photos")
    parser.add_argument("--celebrities", type=Path, help="likewise, of aligned crops")
    parser.add_argument("--tries", type=int, default=200, help="of each kind")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--part", choices=("report", "calibration", "all"), default="report")
    parser.add_argument(
        "--photos", type=int, default=3, help="of each person that are filmed, at most"
    )
    parser.add_argument(
        "--whole", type=int, default=8, help="of each attack, filmed frame by frame"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that make clips")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep",
        type=Path,
        help="a folder for what the engine saw; the same command goes on where it was stopped",
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
    asyncio.run(run(arguments))


if __name__ == "__main__":
    main()
