"""Between the journal and the manifest: faces into arrays, decisions into rows with reasons.

Knows the words for decisions; knows nothing about how they are made.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.console import Advance
from training.datasets import audit
from training.datasets.audit import Decisions, FaceLimits, Overrides
from training.datasets.journal import GREY_PX, Journal, JournalFace, SeenPhoto
from training.datasets.manifest import Code, Row, Status
from training.datasets.seeing import CROPS, face_id

_DIGITS = 3


@dataclass(frozen=True)
class JournalFaces:
    """The journal's faces in arrays.

    Attributes:
        people: names, sorted; `photos.owner` indexes them.
        paths: (n) of the photos with faces.
        photos: what there is to decide about.
    """

    people: list[str]
    paths: list[str]
    photos: audit.Photos


def match(book: Journal, overruled: Sequence[Row]) -> tuple[dict[str, Row], list[str]]:
    """Find the photos that an operator's words are about.

    A word is about the photo of the same path while its bytes are the same; or, when that is gone,
    about the same photo under another name.

    Returns:
        The overruled rows by the photo's path now, and the paths of those that no longer apply.
    """
    words: dict[str, Row] = {}
    moved: list[Row] = []
    for row in overruled:
        sha256 = book.sha256_of(row.path)
        known = () if sha256 is None else (f.id for f in book.faces_of(row.path))
        if sha256 is not None and row.id in {*known, face_id(sha256 or row.path, None)}:
            words[row.path] = row
        else:
            moved.append(row)
    lost: list[str] = []
    for row in moved:
        path = next((path for path in book.photos_of(row.id) if path not in words), None)
        if path is None:
            lost.append(row.path)
        else:
            words[path] = row
    return words, lost


def load(book: Journal, dimension: int, words: Mapping[str, Row], advance: Advance) -> JournalFaces:
    """Everything that is to be decided about.

    Raises:
        ValueError: an operator has chosen a face that a photo does not have.
    """
    _, count = book.counts()
    paths: list[str] = []
    owners: list[int] = []
    first = [0]
    number: dict[str, int] = {}
    for done, (seen, faces) in enumerate(book.photos(), 1):
        if faces:
            word = words.get(seen.photo.path)
            owner = (word.override_person if word else None) or seen.photo.person
            paths.append(seen.photo.path)
            owners.append(number.setdefault(owner, len(number)))
            first.append(first[-1] + faces)
        if done % 256 == 0:
            advance(done)
    people = sorted(number)
    rank = np.empty(len(people), np.int64)
    rank[[number[name] for name in people]] = np.arange(len(people))

    vectors = np.empty((count, dimension), np.float32)
    for i, vector in enumerate(book.vectors()):
        vectors[i] = np.frombuffer(vector, np.float32)
    grey = np.empty((count, GREY_PX, GREY_PX), np.uint8)
    measured = np.empty((3, count), np.float32)
    identity = np.empty(count, np.uint64)
    for i, (_, face) in enumerate(book.faces()):
        grey[i] = face.grey
        measured[:, i] = face.area, face.size_px, face.blur
        identity[i] = int(face.id, 16)
    area, size_px, blur = measured
    photos = audit.Photos(
        people=len(people),
        owner=rank[np.array(owners, np.int64)],
        first=np.array(first, np.int64),
        vectors=vectors,
        grey=grey,
        area=area,
        size_px=size_px,
        blur=blur,
        identity=identity.view(np.int64),
        word=_word(book, paths, first, words),
    )
    return JournalFaces(people, paths, photos)


def _word(
    book: Journal, paths: Sequence[str], first: Sequence[int], words: Mapping[str, Row]
) -> Overrides:
    count = len(paths)
    kept, dropped, named = (np.zeros(count, bool) for _ in range(3))
    chosen = np.full(count, -1, np.int64)
    for i, path in enumerate(paths):
        word = words.get(path)
        if word is None:
            continue
        kept[i] = word.override is Status.KEEP
        dropped[i] = word.override is Status.DROP
        named[i] = bool(word.override_person)
        if word.override_face:
            ids = [face.id for face in book.faces_of(path)]
            if word.override_face not in ids:
                raise ValueError(
                    f"{path}: override_face is {word.override_face!r}, which is none of its faces "
                    f"({', '.join(ids)}). Correct the manifest."
                )
            chosen[i] = first[i] + ids.index(word.override_face)
    return Overrides(kept, dropped, named, chosen)


def rows(
    book: Journal,
    faces: JournalFaces,
    decided: Decisions,
    words: Mapping[str, Row],
    limits: FaceLimits,
) -> Iterator[Row]:
    """The manifest's rows, by path."""
    candidates = book.faces()
    i = 0
    for seen, count in book.photos():
        path = seen.photo.path
        word = words.get(path)
        row = _row(seen, word)
        if count:
            own = [next(candidates)[1] for _ in range(count)]
            chosen = own[decided.chosen[i] - faces.photos.first[i]]
            row = _face_row(row, chosen, own, i, faces, decided, limits)
            i += 1
        yield row


def _row(seen: SeenPhoto, word: Row | None) -> Row:
    return Row(
        id=face_id(seen.sha256 or seen.photo.path, None),
        path=seen.photo.path,
        person=seen.photo.person,
        status=Status.DROP,
        code=seen.code,
        reason=seen.reason,
        override=word.override if word else None,
        override_person=word.override_person if word else None,
        override_face=word.override_face if word else None,
    )


def _face_row(
    row: Row,
    face: JournalFace,
    own: Sequence[JournalFace],
    i: int,
    faces: JournalFaces,
    decided: Decisions,
    limits: FaceLimits,
) -> Row:
    code = decided.code[i]
    copy = code in (Code.COPY, Code.NEAR_COPY)
    return replace(
        row,
        id=face.id,
        status=Status.KEEP if code in ("", Code.SEVERAL_FACES, Code.OPERATOR) else Status.DROP,
        code=code,
        reason=_reason(code, face, own, i, faces, decided, limits),
        twin=faces.paths[decided.other[i]] if copy else None,
        likely=faces.people[decided.other[i]] if code == Code.MISLABEL else None,
        faces=len(own),
        crop=f"{CROPS}/{face.crop}",
        landmarks=[[round(float(x), _DIGITS), round(float(y), _DIGITS)] for x, y in face.landmarks],
        group=int(decided.group[i]),
        size_px=round(face.size_px, _DIGITS),
        blur=round(face.blur, _DIGITS),
        exposure=round(face.exposure, _DIGITS),
        yaw=None if face.yaw is None else round(face.yaw, _DIGITS),
        pitch=None if face.pitch is None else round(face.pitch, _DIGITS),
    )


def _reason(
    code: Code | str,
    face: JournalFace,
    own: Sequence[JournalFace],
    i: int,
    faces: JournalFaces,
    decided: Decisions,
    limits: FaceLimits,
) -> str:
    other, owner = int(decided.other[i]), faces.photos.owner
    if code == Code.SMALL:
        return f"the face is {face.size_px:.0f} pixels wide, under {limits.size_px:g}"
    if code == Code.BLURRED:
        return f"blurred: {face.blur:.2f}, over {limits.blur:g}"
    if code == Code.MISLABEL:
        return (
            f"looks like {faces.people[other]} ({decided.likeness[i]:.2f}), not like the person's "
            f"other photos ({decided.own[i]:.2f})"
        )
    if code == Code.STRAY:
        return f"unlike the person's other photos ({decided.own[i]:.2f})"
    if code in (Code.COPY, Code.NEAR_COPY):
        same = "the same picture as" if code == Code.COPY else "nearly the same picture as"
        foreign = "" if owner[i] == owner[other] else ", under another person's name"
        return f"{same} {faces.paths[other]}{foreign}"
    if code == Code.SEVERAL_FACES:
        largest = max(own, key=lambda candidate: candidate.area)
        which = "the largest too" if face.id == largest.id else "not the largest"
        return f"of {len(own)} faces the one most like the person's other photos; {which}"
    return "the operator's word" if code == Code.OPERATOR else ""
