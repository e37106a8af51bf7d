"""Options that several commands share.

Imports nothing heavy: commands set up threads before torch is loaded.
"""

from pathlib import Path
from typing import Annotated

import typer

PeopleOption = Annotated[
    Path | None,
    typer.Option(
        "--people",
        metavar="FILE.tsv",
        help="Only these people, under these names: a tab-separated list with the columns folder, "
        "display_name, country, known_for_en and known_for_es.",
    ),
]
StrangersOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--strangers",
        metavar="DIR|MANIFEST",
        help="People who are not to be recognised, one photo of each is enough: thresholds and "
        "percentiles rest on them. Whoever is in the gallery is left out. May be repeated.",
    ),
]
