"""`python -m training card`: a bundle's model card."""

from training.console import echo, failures
from training.options import BundleArgument


def card(
    bundle: BundleArgument,
) -> None:
    """Print a bundle's model card as Markdown: what it is, rests on, and is for."""
    with failures():
        from engine import bundle as bundles
        from training.bundles.model_card import card as written

        text = written(bundles.load(bundle))
    echo(text.removesuffix("\n"))
