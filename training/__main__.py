"""`python -m training`: the workshop's command line, a table of its commands."""

import typer

from training.commands.add import add
from training.commands.calibrate import calibrate
from training.commands.card import card
from training.commands.classifier import classifier
from training.commands.evaluate import evaluate
from training.commands.fetch import fetch
from training.commands.gallery import gallery
from training.commands.plot import plot
from training.commands.prepare import prepare
from training.commands.remove import remove
from training.commands.vectorizer import vectorizer

app = typer.Typer(
    help="Turn folders of faces into bundles that the engine serves.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def main() -> None:
    """Turn folders of faces into bundles that the engine serves."""


app.command()(add)
app.command()(calibrate)
app.command()(card)
app.command()(classifier)
app.command()(evaluate)
app.command()(fetch)
app.command()(gallery)
app.add_typer(plot, name="plot")
app.command()(prepare)
app.command()(remove)
app.command()(vectorizer)


if __name__ == "__main__":
    app()
