"""`python -m training calibrate`: a bundle's thresholds and probabilities, on held-out faces.

Or those of a login, which are of the bundle's embedder and not of its people.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from engine import threads
from training.console import emit, failures, progress, results, show, today
from training.options import AlignedOption, BundleArgument, CreatedOption, JsonOption, SeedOption

if TYPE_CHECKING:
    from engine.bundle import Calibration
    from engine.decision import LoginCalibration
    from training.measure.recalibrate import Recalibration


def calibrate(
    bundle: BundleArgument,
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
    aligned: AlignedOption = False,
    created: CreatedOption = None,
    login: Annotated[
        bool,
        typer.Option(
            "--login",
            help="Measure the thresholds of a login instead: on everybody in DATA and DIR alike, "
            "whether the bundle knows them or not.",
        ),
    ] = False,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure temperature, thresholds and percentiles anew, and write them into the .json."""
    threads.configure()
    with failures():
        from engine import bundle as bundles
        from engine.people import recogniser
        from training.measure import recalibrate, sight
        from training.measure.evaluate import seen
        from training.measure.login import rounds

        loaded, when = bundles.load(bundle), created or today()
        recogniser.require_people(loaded)
        scorer = sight.for_bundle(loaded, bundle)
        faces = seen(scorer, data, aligned=aligned)
        more = seen(scorer, openset, aligned=aligned) if openset else None
        if login:
            people = recalibrate.login_people(faces, more)
            with progress("Measuring logins", rounds(people)) as advance:
                measured = recalibrate.recalibrate_login(
                    scorer, faces, created=when, strangers=more, seed=seed, advance=advance
                )
            changes = {"login": measured, "login_absent": ""}
            manifest = loaded.manifest.model_copy(update=changes)
        else:
            found = recalibrate.recalibrate(
                scorer, faces, created=when, strangers=more, fmr=fmr, seed=seed
            )
            manifest = recalibrate.renewed(loaded.manifest, found.after)
        bundles.rewrite(bundles.locate(bundle), manifest)
    if login and as_json:
        emit(_plain_login(measured))
    elif login:
        _show_login(bundle, measured)
    elif as_json:
        emit({"before": _plain(found.before), "after": _plain(found.after)})
    else:
        _show(bundle, found)


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
    show(f"Wrote the .json of {name}: {found.source} (version {found.version}).")


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
    show(f"Wrote the .json of {name}: {after.source}.")
