"""`python -m training remove`: a person out of a gallery bundle."""

from typing import Annotated

import typer

from training.console import emit, failures, show, today
from training.options import CreatedOption, JsonOption


def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The person's name.")],
    out_of: Annotated[
        str,
        typer.Option("--from", metavar="BUNDLE", help="A gallery: a name in run/models, a path."),
    ],
    created: CreatedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove a person from a gallery bundle: name, prototypes and thumbnail.

    Photos and prepared datasets are not touched: delete those yourself, below run/datasets too.
    """
    with failures():
        from engine import bundle
        from training.bundles import members

        left = members.remove(name, bundle.locate(out_of), created=created or today())
    if as_json:
        emit({"bundle": left.id, "people": len(left.manifest.people)})
        return
    show(f"{name} is gone; {left.id} knows {len(left.manifest.people)} people.")
