"""`python -m training calibrate`: a bundle's thresholds and probabilities, on held-out faces.

Or those of a login, which are of the bundle's embedder and not of its people.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from engine import threads
from engine.terminal import escape
from training.console import emit, failures, progress, results, today

if TYPE_CHECKING:
    from engine.bundle import Calibration
    from engine.decision import LoginCalibration
    from training.measure.evaluate import Seen
    from training.measure.recalibrate import Recalibration
    from training.measure.sight import Sight


def calibrate(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="A name in run/models, or a path.")
    ],
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="One folder per person, or a manifest: photos that the bundle was not made from, "
            "of its people (matched by name) and of strangers.",
        ),
    ],
    openset: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="More strangers: one folder per person, or a manifest."),
    ] = None,
    fmr: Annotated[
        float,
        typer.Option(min=1e-6, max=0.5, help="Share of strangers who may be called by a name."),
    ] = 1e-3,
    aligned: Annotated[
        bool, typer.Option("--aligned", help="The files are crops on the ArcFace template.")
    ] = False,
    created: Annotated[
        str | None,
        typer.Option(help="Date to write down. Default: SOURCE_DATE_EPOCH or today."),
    ] = None,
    login: Annotated[
        bool,
        typer.Option(
            "--login",
            help="Measure the thresholds of a login instead: on everybody in DATA and DIR alike, "
            "whether the bundle knows them or not.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of draws and bootstraps.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure temperature, thresholds and percentiles anew, and write them into the .json."""
    threads.configure()
    with failures():
        if login:
            measured = _login(bundle, data, openset, aligned, created or today(), seed)
        else:
            found = _calibrate(bundle, data, openset, fmr, aligned, created or today(), seed)
    if login:
        if as_json:
            emit(_plain_login(measured))
        else:
            _show_login(bundle, measured)
    elif as_json:
        emit({"before": _plain(found.before), "after": _plain(found.after)})
    else:
        _show(bundle, found)


def _calibrate(
    name: str,
    source: Path,
    openset: Path | None,
    fmr: float,
    aligned: bool,
    created: str,
    seed: int,
) -> "Recalibration":
    from engine import bundle
    from training.measure.recalibrate import recalibrate, renewed

    eyes = _eyes(name)
    found = recalibrate(
        eyes,
        _seen(eyes, source, aligned),
        created=created,
        strangers=_seen(eyes, openset, aligned) if openset else None,
        fmr=fmr,
        seed=seed,
    )
    bundle.rewrite(bundle.locate(name), renewed(eyes.bundle.manifest, found.after))
    return found


def _login(
    name: str, source: Path, openset: Path | None, aligned: bool, created: str, seed: int
) -> "LoginCalibration":
    from engine import bundle
    from training.measure.login import rounds
    from training.measure.recalibrate import login_people, recalibrate_login

    eyes = _eyes(name)
    data = _seen(eyes, source, aligned)
    more = _seen(eyes, openset, aligned) if openset else None
    with progress("Measuring logins", rounds(login_people(data, more))) as advance:
        found = recalibrate_login(
            eyes, data, created=created, strangers=more, seed=seed, advance=advance
        )
    manifest = eyes.bundle.manifest.model_copy(update={"login": found, "login_absent": ""})
    bundle.rewrite(bundle.locate(name), manifest)
    return found


def _eyes(name: str) -> "Sight":
    from engine import bundle
    from engine.people import recogniser
    from training.measure import sight

    chosen = bundle.load(name)
    recogniser.require_people(chosen)
    return sight.for_bundle(chosen, name)


def _seen(eyes: "Sight", path: Path, aligned: bool) -> "Seen":
    from training.datasets import probes
    from training.measure.evaluate import Seen

    found = probes.of(path, lambda: eyes.tools, aligned=aligned)
    with progress(f"Seeing {found.faces.name}", len(found.faces)) as advance:
        return Seen(found, eyes.vectors(found.faces, advance))


def _plain(calibration: "Calibration") -> dict[str, Any]:
    return calibration.model_dump(mode="json", exclude={"stranger_quantiles"})


def _plain_login(found: "LoginCalibration") -> dict[str, Any]:
    from engine import decision

    plain = decision.to_json(found)
    del plain["centre"]
    return plain | {"version": found.version}


def _show_login(name: str, found: "LoginCalibration") -> None:
    table = Table("by", "templates", "probes", "threshold", box=None, pad_edge=False)
    for heading in ("strangers let in, 5 attempts", "at most (95 %)", "right ones refused"):
        table.add_column(heading, justify="right")
    for point in found.points:
        table.add_row(
            point.level,
            str(point.templates),
            str(point.probes),
            f"{point.threshold:.3f}",
            f"{point.fmr:.4%}",
            f"{point.fmr_upper_95:.4%}",
            f"{point.fnmr:.2%}",
        )
    results.print(table)
    results.print(
        f"Ask for {found.captures} photos at enrolment and {found.probes} at a login by photo."
    )
    if not any(point.level == "video" for point in found.points):
        results.print(
            "Too few faces are turned aside to measure a login by video: it stays off.",
            soft_wrap=True,
        )
    results.print(
        escape(f"Wrote the .json of {name}: {found.source} (version {found.version})."),
        highlight=False,
        soft_wrap=True,
    )


def _show(name: str, found: "Recalibration") -> None:
    table = Table("", "before", "now", box=None, pad_edge=False)
    before, after = found.before, found.after
    table.add_row("temperature", f"{before.temperature:.4f}", f"{after.temperature:.4f}")
    rows = (
        ('similarity from which it says "is"', "threshold", ".3f"),
        ("strangers called by a name", "fmr", ".3%"),
        ("at most (95 %)", "fmr_upper_95", ".3%"),
        ("known people called by name", "true_positive_rate", ".1%"),
    )
    for label, key, form in rows:
        values = (format(getattr(one.identification, key), form) for one in (before, after))
        table.add_row(label, *values)
    middle = len(after.stranger_quantiles) // 2
    table.add_row(
        "a stranger's best match (median)",
        f"{before.stranger_quantiles[len(before.stranger_quantiles) // 2]:.3f}",
        f"{after.stranger_quantiles[middle]:.3f}",
    )
    old = {record.fmr: record for record in before.pairs}
    for record in after.pairs:
        earlier = old.get(record.fmr)
        bound = "" if record.fmr_upper_95 is None else f" (at most {record.fmr_upper_95:.3%})"
        table.add_row(
            f"two photos, one person: FMR {record.fmr:g}",
            f"{earlier.threshold:.3f}" if earlier else "",
            f"{record.threshold:.3f}{bound}",
        )
    results.print(table)
    if not found.pairs_measured:
        results.print("Too few pairs of faces: the thresholds for two photos stay as they were.")
    results.print(
        escape(f"Wrote the .json of {name}: {after.source}."), highlight=False, soft_wrap=True
    )
