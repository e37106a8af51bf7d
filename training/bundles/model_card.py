"""A bundle's model card (Mitchell et al. 2019): what it is, what it rests on, what it is for.

Everything is the bundle's own word, or follows from its kind. Knows bundles; knows nothing about
how they are made or measured.
"""

import re
from collections.abc import Mapping

from engine.bundle import Bundle, Calibration, DatasetRecord
from engine.decision import LoginCalibration

_NAMES_SHOWN = 30
_FEW_PEOPLE = 50

_KINDS = {
    "gallery": "A gallery: it knows people by reference vectors, a few for each, and answers with "
    "those whose vectors are closest to a face's. No network was trained for it.",
    "classifier": "A classifier: it was trained to tell these people apart, and answers with those "
    "whose trained directions a face is closest to.",
    "vectorizer": "A vectorizer: a network that turns faces into vectors, trained so that vectors "
    "of one person lie close together. It knows nobody by itself; galleries and classifiers are "
    "built with it.",
}

_RECIPES = {
    "head": "The embedder stayed as it was; one trained direction (or a few) stands for a person.",
    "finetune": "The last stages of the embedder were trained along, at a low rate.",
    "cnn": "The whole network was trained on the photos, from end to end.",
}

_METRICS = {
    "top_1": "held-out photos whose most similar person is the right one",
    "top_5": "held-out photos with the right person among the first five",
}


def card(bundle: Bundle) -> str:
    """The card, as Markdown that ends in a line break."""
    record = bundle.manifest
    knows = record.kind != "vectorizer"
    parts = [
        f"# {_plain(bundle.name)}",
        _KINDS[record.kind],
        _facts(bundle),
        "## Data",
        _data(record.dataset, knows=knows, thumbnails="thumbnails" in bundle.tensors),
    ]
    if knows:
        parts += ["## People", _people(list(record.people.values()))]
    parts += ["## How it was made", _making(bundle)]
    parts += ["## How good it is", _metrics(record.metrics, knows=knows)]
    if record.calibration is not None:
        parts.append(_calibration(record.calibration))
    if record.login is not None:
        parts += ["## As a login's second factor", _login(record.login)]
    parts += ["## Limits", _bullets(_limits(bundle))]
    parts += ["## What it is for", _bullets(_uses(knows=knows))]
    parts += ["## What it is not for", _bullets(_misuses(knows=knows))]
    parts += ["## Faces are biometric data", f"{_CAUTION}\n\n{_MEANS}" if knows else _CAUTION]
    return "\n\n".join(parts) + "\n"


def _facts(bundle: Bundle) -> str:
    record = bundle.manifest
    facts = [
        ("Bundle", f"`{bundle.id.replace('`', '')}`"),
        ("Made", _plain(record.created)),
        ("Embedder", _plain(_embedder(bundle))),
    ]
    if record.people:
        facts.append(("People", f"{len(record.people):,}"))
    facts.append(("Licence of the data", _plain(record.dataset.licence)))
    if "licence" in record.architecture:
        facts.append(("Licence of the weights", _plain(str(record.architecture["licence"]))))
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in facts)


def _embedder(bundle: Bundle) -> str:
    record = bundle.manifest
    if record.embedder is None:
        return "none: trained from nothing"
    made = f"{record.embedder.id} (weights {record.embedder.weights_sha256[:8]})"
    return f"started from {made}" if record.kind == "vectorizer" else made


def _data(data: DatasetRecord, *, knows: bool, thumbnails: bool) -> str:
    left_out = ", ".join(
        f"{count:,} {_plain(code.replace('_', ' '))}" for code, count in data.dropped.items()
    )
    return " ".join(
        [
            f"Made from “{_plain(data.name)}”: {data.faces:,} faces of {data.people:,} people, out "
            f"of {data.photos:,} photos.",
            f"Left out: {left_out}." if left_out else "Nothing is recorded as left out.",
            "The licence of the photos is unknown, which is no permission: find out before the "
            "bundle is passed on."
            if data.licence.strip().lower() in ("", "unknown")
            else f"The photos' licence, {_plain(data.licence)}, binds whoever uses what was made "
            "from them.",
            f"The bundle holds {'a small picture of each person' if thumbnails else 'no photo'}, "
            f"{'and' if thumbnails else 'but'} vectors from which these people can be recognised."
            if knows
            else "The bundle holds no photo and no vector of these people, but weights that were "
            "fitted to them.",
        ]
    )


def _people(names: list[str]) -> str:
    shown = ", ".join(_plain(name) for name in names[:_NAMES_SHOWN])
    more = len(names) - _NAMES_SHOWN
    return f"{shown} and {more:,} more." if more > 0 else f"{shown}."


def _making(bundle: Bundle) -> str:
    record = bundle.manifest
    made = record.architecture
    said = []
    if record.kind == "gallery":
        said.append(
            f"{made.get('prototypes', len(bundle.tensors['owner']))} prototypes summarise the "
            "faces: means of each person's clusters, on the sphere, around the mean face of all."
        )
    if made.get("recipe") in _RECIPES:
        said.append(_RECIPES[str(made["recipe"])])
    if "network" in made:
        started = f", started from {made['started_from']}" if "started_from" in made else ""
        said.append(f"The network is {made['network']}{started}.")
    if "adapter" in made:
        said.append(
            f"A {made['adapter']} adapter was trained on top of the embedder, which stayed as it "
            "was."
        )
    if "epochs" in made:
        said.append(f"Trained for {made['epochs']} epochs, seed {made.get('seed', 0)}.")
    if isinstance(made.get("training"), Mapping):
        plan = ", ".join(f"{key} {value}" for key, value in made["training"].items())
        said.append(f"Plan: {plan}.")
    said.append(
        f"Faces are found, aligned and normalised by version {record.preprocessing} of "
        "face-matcher's preprocessing."
    )
    return _plain(" ".join(said))


def _metrics(metrics: Mapping[str, float], *, knows: bool) -> str:
    if not metrics:
        return (
            "Nothing was measured when it was made. Measure it on photos that it was not made "
            "from: `python -m training evaluate BUNDLE DATA`."
        )
    rows = "\n".join(
        f"| {_plain(_METRICS.get(name, name.replace('_', ' ')))} | {value:.2%} |"
        for name, value in metrics.items()
    )
    rest = (
        "These rest on photos of the same people from the same collection, held out; faces that "
        "prepare doubts were left out before. Photos taken otherwise do worse."
        if knows
        else "Strangers are people whom the training did not see; members took part in it, with "
        "other photos. TAR at FMR is the share of pairs of one person that are accepted at that "
        "share of pairs of two people."
    )
    return f"| | |\n|---|---|\n{rows}\n\n{rest}"


_MEANS = """It holds directions of its people, made from their photos. Elsewhere this project \
treats such numbers like a photo. Track them in a repository only where everybody in the bundle \
is a public figure and the photos may be used so; directions of private people belong with their \
photos. `python -m training remove NAME --from BUNDLE` takes somebody out."""


def _calibration(calibration: Calibration) -> str:
    found = calibration.identification
    own = calibration.source.startswith("own")
    lines = [
        "Its thresholds were measured on faces that were held out"
        + (f" ({_plain(calibration.source)})." if calibration.source != "own" else ".")
        if own
        else f"Its thresholds were borrowed from {_plain(calibration.source)}: nobody measured "
        "them with these people.",
        f"It says “is” from a similarity of {found.threshold:.3f} on. Of {found.strangers:,} faces "
        f"of {found.stranger_people:,} strangers, {found.fmr:.2%} reached that "
        f"(95 % upper bound: {found.fmr_upper_95:.2%}); of {found.genuine:,} faces of people it "
        f"knows, {found.true_positive_rate:.1%} were called by their name.",
        (
            f"The strangers are people of {_plain(calibration.strangers)} who are not in it."
            if calibration.strangers
            else "The strangers are its own people, each left out in turn: other people may differ."
        )
        + " Only these numbers were kept of them.",
        "A probability says how the likeness is shared among the people it knows. It is not the "
        "probability of being that person.",
    ]
    if found.repeated is not None:
        lines.append(
            f"Of {found.repeated.people} strangers with five photos or more, "
            f"{found.repeated.share:.1%} got the same name in more than a tenth of them (95 % "
            f"upper bound: {found.repeated.share_upper_95:.1%})."
        )
    pairs = "\n".join(
        f"| {record.fmr:g} | {record.threshold:.3f} | {record.true_accept_rate:.1%} "
        f"| {record.impostor_pairs:,} of {record.people:,} people |"
        for record in calibration.pairs
    )
    return (
        "\n\n".join(lines)
        + "\n\nTwo photos, one person or two:\n\n"
        + "| false match rate | similarity | true accepts | impostor pairs |\n|---|---|---|---|\n"
        + pairs
    )


def _login(login: LoginCalibration) -> str:
    rows = "\n".join(
        f"| {point.level} | {point.templates} | {point.probes} | {point.threshold:.3f} "
        f"| {point.fmr:.4%} | {point.fmr_upper_95:.4%} | {point.fnmr:.2%} "
        f"| {point.impostor_trials:,}, {point.genuine_trials:,} of {point.people} people |"
        for point in login.points
    )
    whence = (
        f"Measured on faces of the embedder {_plain(login.embedder)} ({_plain(login.source)})"
        if login.source.startswith("own")
        else f"Borrowed from {_plain(login.source)}, which has the same embedder"
    )
    return (
        f"{whence}; version `{login.version}`. Advised: {login.captures} photos at enrolment, "
        f"{login.probes} at a login by photo. The mean of the enrolled photos is compared with the "
        "mean of the fresh ones. Strangers let in: of those who pick somebody else's account and "
        f"have {login.attempts} attempts in a row, none of them with a prepared fake. A clip "
        "counts as one photo of the right person, and as the worst number of photos of a stranger: "
        "nobody has measured it on real clips.\n\n"
        "| by | enrolled | fresh | similarity | strangers let in | at most (95 %) | right ones "
        "refused, an attempt | tries |\n|---|---|---|---|---|---|---|---|\n" + rows
    )


def _limits(bundle: Bundle) -> list[str]:
    record = bundle.manifest
    limits = [
        "A likeness is no proof of identity. Siblings, and strangers who happen to look alike, can "
        "be more similar than two photos of one person years apart.",
        "Small, blurred, dark, turned or covered faces are recognised less often.",
        "Nobody measured it by age, skin colour or sex. Face recognition is known to differ "
        "between such groups; expect more mistakes for whoever is rare in its data.",
    ]
    if record.dataset.people < _FEW_PEOPLE:
        limits.append(
            f"It rests on {record.dataset.people} people. Rates of rare mistakes are uncertain "
            "with so few, whatever the number of photos."
        )
    if record.kind != "vectorizer":
        limits.append(
            "It answers with the closest of its people for any face, strangers' too. The "
            "percentile and the verdict say what that is worth, not the name."
        )
        if not bundle.calibration.source.startswith("own"):
            limits.append(
                "Its rates were measured with another bundle. Measure its own: `python -m "
                "training calibrate BUNDLE DATA`."
            )
    return limits


def _uses(*, knows: bool) -> list[str]:
    if knows:
        return [
            "Telling people who ask which of these people they look like, for fun.",
            "Sorting one's own photos by who is on them, with a person to look over the result.",
        ]
    return [
        "Building galleries and classifiers with `--embedder trained:NAME`, for photos like the "
        "ones it was trained on.",
        "Comparing two photos of people who agreed to it, as one factor of a login among others.",
    ]


def _misuses(*, knows: bool) -> list[str]:
    uses = [
        "Surveillance, or finding out who strangers are: on the street, in a crowd, on the web.",
        "Deciding anything about a person's work, credit, travel, benefits or liberty.",
        "Guessing origin, religion, health, character or orientation from a face.",
    ]
    if knows:
        uses.append("Passing an answer on as a fact about the person in the photo.")
    else:
        uses.append(
            "Letting anybody in by a photo alone: it cannot tell a face from a picture of one."
        )
    return uses


_CAUTION = (
    "In many places vectors that can tell who somebody is are biometric data, with the same "
    "standing as fingerprints (in the European Union, article 9 of the GDPR). Ask the people "
    "concerned, keep no more than is needed, and delete them when they ask; people in a gallery "
    "are removed with `python -m training remove NAME`. Other people's licences and rights to "
    "their own image hold for photos found on the web as well."
)


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _plain(text: str) -> str:
    """A text from a bundle that cannot become markup: no tags, tables, links or line breaks."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))
