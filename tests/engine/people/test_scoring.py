"""What a similarity is worth, by the strangers that a bundle was measured on."""

import numpy as np
import pytest
import torch

from engine import bundle
from engine.bundle import TailRecord
from engine.errors import BundleError
from engine.people.scoring import MatchScorer
from engine.types import Verdict
from tests.engine.bundles import make, manifest

TAIL = TailRecord(start=0.5, rate=0.1, shape=-0.25, scale=0.06)


def scorer(folder, people=("Ana", "Ben", "Carla"), **changes):
    """A bundle's judge; of its strangers 75 % are below .5, by counting."""
    record = manifest(people)["calibration"]
    record["identification"] |= changes.pop("identification", {})
    return MatchScorer(bundle.load(make(folder, people, calibration=record | changes)))


def asked(made, similarities, person=0):
    """What is said about a face that resembles one person so much, and nobody else."""
    rows = torch.full((len(made.names), len(similarities)), -1.0)
    rows[person] = torch.tensor(similarities, dtype=torch.float32)
    found = made.matches([(torch.arange(len(made.names)), rows)], 1)
    assert {matches[0].name for matches in found} == {made.names[person]}
    return [matches[0] for matches in found]


def percentiles(made, similarities):
    return [match.percentile for match in asked(made, similarities)]


def test_beyond_its_start_the_tail_tells_how_rare_a_similarity_is(tmp_path):
    made = scorer(tmp_path, tail=TAIL)
    levels = [TAIL.level(share) for share in (0.05, 0.01, 1e-3)]
    assert percentiles(made, levels) == pytest.approx([95.0, 99.0, 99.9], abs=1e-3)


def test_up_to_the_start_counting_tells_it(tmp_path):
    similar = [-0.5, 0.0, 0.1, 0.2, 0.3]
    counted = percentiles(scorer(tmp_path / "counted"), similar)
    assert percentiles(scorer(tmp_path / "fitted", tail=TAIL), similar) == counted
    assert counted == pytest.approx([0.0, 0.0, 12.5, 25.0, 37.5], abs=1e-4)


def test_the_two_meet_at_the_start(tmp_path):
    # Counted, 95 % are below where the tail says that 90 % are.
    record = TailRecord(start=0.58, rate=0.1, shape=-0.25, scale=0.03)
    below, at, above = percentiles(scorer(tmp_path, tail=record), [0.5799, 0.58, 0.5801])
    assert below == 90.0
    assert at == pytest.approx(90.0, abs=1e-3)
    assert above == pytest.approx(90.0, abs=0.05)
    assert above > 90.0


@pytest.mark.parametrize("shape", [0.0, -0.25, -0.5])
@pytest.mark.parametrize("start", [0.3, 0.5, 0.58])
def test_more_alike_is_never_less_rare(tmp_path, shape, start):
    record = TailRecord(start=start, rate=0.1, shape=shape, scale=0.05)
    found = percentiles(scorer(tmp_path, tail=record), np.linspace(-1, 1, 401).tolist())
    assert found == sorted(found)
    assert 0 <= found[0] < found[-1] < 100


@pytest.mark.parametrize("tail", [TAIL, None])
def test_nothing_is_rarer_than_the_strangers_can_tell(tmp_path, tail):
    made = scorer(tmp_path, tail=tail, identification={"strangers": 499})
    (highest,) = percentiles(made, [0.99])
    assert highest == pytest.approx(99.8)


def test_a_tail_decides_what_is_called_strong(tmp_path):
    counted, fitted = scorer(tmp_path / "counted"), scorer(tmp_path / "fitted", tail=TAIL)
    (match,) = asked(counted, [0.56])
    assert match.verdict is Verdict.GOOD
    (match,) = asked(fitted, [0.56])
    assert match.verdict is Verdict.STRONG
    assert match.percentile > 95


@pytest.mark.parametrize("ends", [[9, 0, 9], [-1, 5, 9], [3, 5, 10]])
def test_thumbnails_that_overlap_or_are_not_there_are_refused(tmp_path, ends):
    tensors = {
        "thumbnails": torch.arange(9, dtype=torch.uint8),
        "thumbnail_ends": torch.tensor(ends),
    }
    found = bundle.load(make(tmp_path, tensors=tensors))
    with pytest.raises(BundleError, match="thumbnails do not fit"):
        MatchScorer(found)


def test_some_names_need_more_than_others(tmp_path):
    made = scorer(tmp_path, floors={1: 0.8})
    for person, verdicts in (
        (0, [Verdict.STRONG, Verdict.IS, Verdict.IS]),
        (1, [Verdict.STRONG, Verdict.STRONG, Verdict.IS]),
    ):
        found = asked(made, [0.69, 0.75, 0.81], person)
        assert [match.verdict for match in found] == verdicts
