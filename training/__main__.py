"""`python -m training`: the workshop's command line, a table of its commands."""

import typer

from training.commands.gallery import gallery

app = typer.Typer(
    help="Turn folders of faces into bundles that the engine serves.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def main() -> None:
    """Turn folders of faces into bundles that the engine serves."""


app.command()(gallery)


if __name__ == "__main__":
    app()
