"""`python -m training evaluate`: how good a bundle is, on faces that it has not seen."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from engine import threads
from engine.files import write_text
from engine.terminal import escape
from training.console import emit, failures, progress, results, say, today
from training.options import AlignedOption, BundleArgument, JsonOption, SeedOption

if TYPE_CHECKING:
    from training.measure.evaluate import EmbeddedPairs
    from training.measure.evaluation import Evaluation, Verification
    from training.measure.metrics import Rate
    from training.measure.pairs import LfwPairs
    from training.measure.sight import FaceScorer

_LFW = "pairs.txt"


def evaluate(
    bundle: BundleArgument,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="One folder per person, or a manifest: photos that the bundle was not made from. "
            "Its people are matched with the bundle's by name; others count as strangers.",
        ),
    ],
    pairs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="Compare these, too: columns file_x,file_y,same, paths relative to the file. "
            "A .txt is a list in LFW's format, of photos in DATA.",
        ),
    ] = None,
    openset: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Strangers: one folder per person, or a manifest."),
    ] = None,
    aligned: AlignedOption = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where evaluation.json and report.html go. "
            "Default: run/evaluations/BUNDLE-on-DATA.",
        ),
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure a bundle: names, strangers, pairs, probabilities; with a report to read."""
    threads.configure()
    with failures():
        from engine import bundle as bundles
        from training.measure import evaluate as measuring
        from training.measure import evaluation, report, sight

        scorer = sight.for_bundle(bundles.load(bundle), bundle)
        listed, lfw = _read_pairs(scorer, pairs, aligned)
        found = measuring.evaluate(
            scorer,
            measuring.seen(scorer, data, aligned=aligned),
            created=today(),
            strangers=measuring.seen(scorer, openset, aligned=aligned) if openset else None,
            listed=listed,
            lfw=lfw or _find_lfw(data),
            seed=seed,
        )
        record = asdict(found)
        home = out or _home(found)
        text = json.dumps(record, ensure_ascii=False, indent=1)
        write_text(home / evaluation.NAME, text + "\n")
        write_text(home / "report.html", report.page(found))
    if as_json:
        emit(record)
    else:
        _show(found)
    say(f"Wrote {home / 'evaluation.json'} and {home / 'report.html'}.")


def _home(found: "Evaluation") -> Path:
    from engine.bundle import FOLDER

    return FOLDER.parent / "evaluations" / f"{found.bundle.name}-on-{found.data.name}"


def _read_pairs(
    scorer: "FaceScorer", path: Path | None, aligned: bool
) -> tuple["EmbeddedPairs | None", "LfwPairs | None"]:
    from training.measure import pairs
    from training.measure.evaluate import EmbeddedPairs

    if path is None:
        return None, None
    if path.suffix.lower() == ".txt":
        return None, pairs.read_lfw(path)
    given = pairs.read_csv(path)
    with progress("Seeing pairs", len(given.files)) as advance:
        vectors, found = scorer.look(given.files, aligned=aligned, advance=advance)
    return EmbeddedPairs(path.name, given, vectors, found), None


def _find_lfw(source: Path) -> "LfwPairs | None":
    """LFW's pairs where they lie with the photos, as its archives and scikit-learn leave them."""
    from training.measure import pairs

    home = source if source.is_dir() else source.parent
    for place in (home / _LFW, home.resolve().parent / _LFW):
        if place.is_file():
            try:
                return pairs.read_lfw(place)
            except ValueError as error:
                say(f"LFW's protocol is left out: {error}")
    return None


def _show(found: "Evaluation") -> None:
    """The most important figures; the report has all of them."""
    data, known = found.data, found.recognition
    results.print(
        f"[bold]{escape(found.bundle.id)}[/] on {escape(data.name)}: {data.faces:,} faces of "
        f"{data.people:,} people, {data.stranger_faces:,} of strangers",
        highlight=False,
        soft_wrap=True,
    )
    table = Table("", "figure", "95 % interval", "without doubted", box=None, pad_edge=False)
    for column in table.columns:
        column.no_wrap = True
    if known and known.identification:
        sure = known.identification_undoubted
        for label, key in (
            ("right person first (top-1)", "top_1"),
            ("among the first five (top-5)", "top_5"),
            ("called by the right name", "named"),
            ("called by a wrong name", "misnamed"),
        ):
            _rate(
                table,
                label,
                getattr(known.identification, key),
                getattr(sure, key) if sure else None,
            )
    if known and known.open_set:
        sure_set = known.open_set_undoubted
        _rate(
            table,
            "strangers called by a name",
            known.open_set.false_is,
            sure_set.false_is if sure_set else None,
        )
        often = known.open_set.repeated
        if often is not None:
            table.add_row(
                "strangers with 5 photos, one name in over a tenth",
                f"{often.share:.1%} of {often.people}",
                f"at most {often.share_upper_95:.1%}",
            )
    if found.verification:
        _pairs(table, "pairs", found.verification, found.verification_undoubted)
    if found.pairs:
        _pairs(table, found.pairs.name, found.pairs.verification, None)
    if found.lfw:
        accuracy = found.lfw.accuracy
        table.add_row("LFW's ten folds", f"{accuracy.mean:.2%}", f"± {accuracy.standard_error:.2%}")
    if known and known.reliability:
        table.add_row("calibration error (ECE)", f"{known.reliability.ece:.3f}")
    results.print(table)
    for note in found.notes:
        results.print(f"[yellow]•[/] {escape(note)}", highlight=False, soft_wrap=True)


def _rate(table: Table, label: str, rate: "Rate", without: "Rate | None") -> None:
    from training.measure.report import interval, per_cent

    last = per_cent(without.value) if without else ""
    table.add_row(label, per_cent(rate.value), interval(rate), last)


def _pairs(
    table: Table, name: str, measured: "Verification", without: "Verification | None"
) -> None:
    from training.measure.report import one_in, per_cent

    for k, point in enumerate(measured.tar):
        label = f"{escape(name)}: TAR at FMR {one_in(point.fmr)}"
        if point.tar is None:
            table.add_row(label, "not quoted")
            continue
        limits = (
            "too few people"
            if point.lower_95 is None or point.upper_95 is None
            else f"{per_cent(point.lower_95)} to {per_cent(point.upper_95)}"
        )
        sure = without.tar[k].tar if without else None
        weak = " [yellow](weak)[/]" if point.warning else ""
        table.add_row(
            label, per_cent(point.tar) + weak, limits, "" if sure is None else per_cent(sure)
        )
    table.add_row(f"{escape(name)}: equal error rate", per_cent(measured.eer))
