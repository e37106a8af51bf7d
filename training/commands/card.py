"""`python -m training card`: a bundle's model card."""

from typing import Annotated

import typer

from training.console import echo, failures


def card(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="A name in run/models, or a path.")
    ],
) -> None:
    """Print a bundle's model card as Markdown: what it is, rests on, and is for."""
    with failures():
        from engine import bundle as bundles
        from training.bundles.model_card import card as written

        text = written(bundles.load(bundle))
    echo(text.removesuffix("\n"))
