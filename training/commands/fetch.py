"""`python -m training fetch`: public datasets and weights."""

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from engine.terminal import escape
from training.console import emit, failures, results, show
from training.options import AcceptLicenseOption, JsonOption

if TYPE_CHECKING:
    from training.datasets.fetch import Item


def fetch(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="What: lfw, facenet-vggface2, mobilefacenet, imagenet:ARCH."
        ),
    ] = None,
    listed: Annotated[
        bool, typer.Option("--list", help="Say what there is, on which terms, and what is here.")
    ] = False,
    min_photos: Annotated[
        int, typer.Option(help="Of a dataset: only people with so many photos.", min=0)
    ] = 0,
    accept_license: AcceptLicenseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch a public dataset or weights; what was begun is gone on with."""
    with failures():
        from engine import settings
        from training.datasets import fetch as fetching

        places = fetching.Places(settings.load(os.environ).face_weights_dir)
        if listed or name is None:
            if not listed:
                raise ValueError("Say what to fetch; `fetch --list` says what there is.")
            return _list(fetching.items(places), as_json)
        path = fetching.fetch(name, places, accept=accept_license, min_photos=min_photos)
    if as_json:
        return emit({"name": name, "path": str(path)})
    show(f"{name}: {path}")
    if path.is_dir():
        command = f"python -m training prepare {path} --out run/datasets/{path.name}-crops"
        show(f"Next: {command}")
    return None


def _list(items: "list[Item]", as_json: bool) -> None:
    if as_json:
        records = [asdict(item) for item in items]
        return emit([r | {"here": str(r["here"]) if r["here"] else None} for r in records])
    table = Table("name", "what", "MB", "terms", "here")
    for item in items:
        size = "" if item.megabytes is None else str(item.megabytes)
        here = str(item.here) if item.here else "no"
        table.add_row(*map(escape, (item.name, item.what, size, item.terms, here)))
    results.print(table)
    return None
