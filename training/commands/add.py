"""`python -m training add`: a person, or more photos of one, into a gallery bundle."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine import threads
from engine.terminal import escape
from training.console import emit, failures, progress, results, show, today
from training.options import AlignedOption, CreatedOption, JsonOption

if TYPE_CHECKING:
    from training.bundles.members import Addition


def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The person's name.")],
    photos: Annotated[
        list[Path], typer.Argument(metavar="PHOTOS...", help="Photos, or folders of photos.")
    ],
    to: Annotated[
        str, typer.Option("--to", metavar="BUNDLE", help="A gallery: a name in run/models, a path.")
    ],
    aligned: AlignedOption = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Take faces that look like somebody else, too.")
    ] = False,
    created: CreatedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a person to a gallery bundle, or photos to a person in it, without building it again."""
    threads.configure()
    with failures():
        from engine import bundle
        from engine.media import image
        from training import tools
        from training.bundles import members

        files = list(dict.fromkeys(image.files_in(photos)))
        with progress("Seeing photos", len(files)) as advance:
            added = members.add(
                name,
                files,
                bundle.locate(to),
                tools.load,
                created=created or today(),
                aligned=aligned,
                trust=trust,
                advance=advance,
            )
    if as_json:
        emit(_as_json(added))
    else:
        _show(added)


def _as_json(added: "Addition") -> dict[str, object]:
    return {
        "bundle": added.bundle.id,
        "person": added.person,
        "new": added.new,
        "faces": added.faces,
        "people": len(added.bundle.manifest.people),
        "left_out": [{"path": str(entry.path), "reason": entry.reason} for entry in added.left_out],
        "doubts": list(added.doubts),
    }


def _show(added: "Addition") -> None:
    for entry in added.left_out:
        show(f"Left out: {entry.path}: {entry.reason}")
    for doubt in added.doubts:
        results.print(f"[yellow]Look again:[/] {escape(doubt)}", highlight=False, soft_wrap=True)
    what = "is new" if added.new else "was known"
    show(
        f"{added.person} {what}: {added.faces} faces added; {added.bundle.id} knows "
        f"{len(added.bundle.manifest.people)} people."
    )
