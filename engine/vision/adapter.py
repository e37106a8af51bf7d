"""A small change to a frozen embedder's vectors: what is trained in the workshop and served here.

An adapter that was never trained changes nothing. Knows vectors; knows nothing about the embedder
that they come from, about people or files.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from engine.errors import BundleError
from engine.vision.vectors import centred

_HIDDEN = 512


class Form(StrEnum):
    """What kind of change an adapter makes."""

    LINEAR = "linear"
    MLP = "mlp"


class Adapter(nn.Module):
    """x to x + f(x), f beginning as zero; x is a unit vector from the embedder's mean face.

    Args:
        form: f is linear, or has one hidden layer.
        dimension: of the vectors, which stays.
    """

    centre: Tensor

    def __init__(self, form: Form, dimension: int) -> None:
        super().__init__()
        self.form = form
        self.dimension = dimension
        self.register_buffer("centre", torch.zeros(dimension))
        self.change: nn.Module
        last = nn.Linear(dimension if form is Form.LINEAR else _HIDDEN, dimension)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        if form is Form.LINEAR:
            self.change = last
        else:
            self.change = nn.Sequential(nn.Linear(dimension, _HIDDEN), nn.ReLU(), last)

    def forward(self, vectors: Tensor) -> Tensor:
        """(n, dimension) unit vectors of the embedder to (n, dimension) unit vectors."""
        x = centred(vectors, self.centre)
        # The components of a unit vector are small; a layer learns best from numbers around one.
        return normalize(x + self.change(x * self.dimension**0.5), dim=-1)

    def architecture(self) -> dict[str, Any]:
        """What `restore` needs beside the tensors, as plain JSON values."""
        return {"adapter": self.form.value, "dimension": self.dimension}


def restore(architecture: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Adapter:
    """A trained adapter out of a bundle, ready to be used.

    Args:
        architecture: from `Adapter.architecture`; other keys are ignored.
        tensors: the adapter's state; names that do not start with "adapter." are ignored.

    Raises:
        BundleError: the two do not fit together.
    """
    try:
        adapter = Adapter(Form(architecture["adapter"]), int(architecture["dimension"]))
        adapter.load_state_dict(
            {
                name.removeprefix("adapter."): value
                for name, value in tensors.items()
                if name.startswith("adapter.")
            }
        )
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise BundleError(
            f"The bundle's adapter does not fit its description ({first}). Train it again."
        ) from error
    return adapter.eval()


def state(adapter: Adapter) -> dict[str, Tensor]:
    """An adapter's tensors as a bundle keeps them."""
    return {f"adapter.{name}": value for name, value in adapter.state_dict().items()}
