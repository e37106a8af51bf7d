"""Options that several commands share.

Imports nothing heavy: commands set up threads before torch is loaded.
"""

from pathlib import Path
from typing import Annotated

import typer

BundleArgument = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="A name in run/models, or a path.")
]
OutOption = Annotated[
    Path, typer.Option(help="Bundle to write, without suffix.", metavar="run/models/NAME")
]
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
AlignedOption = Annotated[
    bool, typer.Option("--aligned", help="The files are square crops on the ArcFace template.")
]
CreatedOption = Annotated[
    str | None,
    typer.Option(help="Date to write into the bundle. Default: SOURCE_DATE_EPOCH or today."),
]
DatasetOption = Annotated[str | None, typer.Option(help="The data's name. Default: the folder's.")]
LicenceOption = Annotated[str, typer.Option(help="The data's licence.")]
ThumbnailsOption = Annotated[
    bool, typer.Option("--thumbnails", help="Put a small picture of each person into the bundle.")
]
LenderOption = Annotated[
    str | None,
    typer.Option(
        help="Bundle to borrow from when there are too few faces to measure. "
        "Default: the default bundle of the embedder."
    ),
]
RunsOption = Annotated[
    Path | None, typer.Option(help="Folder of checkpoints and logs. Default: run/training.")
]
SeedOption = Annotated[int, typer.Option(help="Of everything random.", min=0)]
AcceptLicenseOption = Annotated[
    bool, typer.Option("--accept-license", help="I agree to the terms; do not ask.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
