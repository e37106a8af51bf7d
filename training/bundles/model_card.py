"""A bundle's model card (Mitchell et al. 2019): what it is, what it rests on, what it is for.

The words are in `training/templates/card.md`; everything they say is the bundle's own word, or
follows from its kind. Knows bundles; knows nothing about how they are made or measured.
"""

import re

from jinja2 import Environment, PackageLoader

from engine.bundle import Bundle

_METRICS = {
    "top_1": "held-out photos whose most similar person is the right one",
    "top_5": "held-out photos with the right person among the first five",
}


def card(bundle: Bundle) -> str:
    """The card, as Markdown that ends in a line break."""
    environment = Environment(  # noqa: S701 (Markdown; `plain` escapes what a bundle says)
        loader=PackageLoader("training"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = _plain
    template = environment.get_template("card.md")
    return template.render(bundle=bundle, r=bundle.manifest, metric_names=_METRICS)


def _plain(text: str) -> str:
    """A text from a bundle that cannot become markup: no tags, tables, links or line breaks."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))
