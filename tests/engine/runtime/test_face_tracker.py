from engine.runtime.face_tracker import FaceTracker
from engine.types import Face, Pose, Quality


def face(x: float, y: float = 100.0, size: float = 80.0, probability: float = 0.99) -> Face:
    box = (x - size / 2, y - size / 2, x + size / 2, y + size / 2)
    return Face(box, ((x, y),) * 5, probability, Quality(size, 0.1, 0.5), Pose(0, 0.56))


def followed(*frames: tuple[Face, ...]) -> list[tuple[float | None, int]]:
    """Where the followed face is in each frame, and how many others are there."""
    follower = FaceTracker()
    seen = [follower.see(sorted(faces, key=size, reverse=True)) for faces in frames]
    return [(centre(one.face), one.others) for one in seen]


def size(face: Face) -> float:
    return face.box[2] - face.box[0]


def centre(face: Face | None) -> float | None:
    return None if face is None else (face.box[0] + face.box[2]) / 2


def test_nobody() -> None:
    assert followed((), ()) == [(None, 0), (None, 0)]


def test_the_largest_is_followed_and_then_the_nearest() -> None:
    assert followed(
        (face(100, size=80), face(300, size=60)),
        (face(110, size=60), face(300, size=90)),  # the other one has come nearer since
        (face(120, size=60),),
    ) == [(100, 1), (110, 1), (120, 0)]


def test_one_who_is_away_for_a_moment_is_found_again() -> None:
    assert followed((face(100),), (), (), (face(130),)) == [
        (100, 0),
        (None, 0),
        (None, 0),
        (130, 0),
    ]


def test_one_who_is_there_first_is_followed_though_a_larger_one_comes() -> None:
    assert followed((), (face(100),), (face(100), face(250, size=200))) == [
        (None, 0),
        (100, 0),
        (100, 1),
    ]


def test_a_cut_to_somewhere_else_is_followed_and_can_be_seen() -> None:
    """Whoever is there alone is the one: that the track jumps is for others to judge."""
    assert followed((face(100),), (face(350),)) == [(100, 0), (350, 0)]


def test_a_part_of_the_face_is_not_taken_for_it() -> None:
    """A find within the face is nearer to its middle than the face itself, which has moved."""
    chin = face(102, size=25)
    assert followed((face(100),), (face(115), chin)) == [(100, 0), (115, 0)]


def test_doubtful_finds_begin_nothing_and_are_only_followed_nearby() -> None:
    doubtful = 0.8
    assert followed((face(100, probability=doubtful),)) == [(None, 0)]
    assert followed((face(100),), (face(110, probability=doubtful),)) == [(100, 0), (110, 0)]
    assert followed((face(100),), (face(300, probability=doubtful),)) == [(100, 0), (None, 0)]


def test_passers_by_and_doubtful_ones_are_no_others() -> None:
    small, doubtful, other = face(250, size=39), face(300, probability=0.89), face(350, size=40)
    assert followed((face(100), small, doubtful)) == [(100, 0)]
    assert followed((face(100), small, doubtful, other)) == [(100, 1)]


def test_one_who_stays_while_the_followed_one_leaves_is_the_followed_one() -> None:
    """Nobody knows better: their embeddings will differ."""
    assert followed((face(100), face(300)), (face(300),)) == [(100, 1), (300, 0)]


def test_a_box_without_area_harms_nobody() -> None:
    assert followed((face(100),), (face(100, size=0), face(101))) == [(100, 0), (101, 0)]
