"""Reads the parameters of dlib's face ResNet from dlib's own serialisation, without dlib.

The format (dlib/serialize.h, dlib/dnn/layers.h): an integer is a control byte, whose low four bits
count the little-endian bytes that follow and whose high bit is the sign; a float outside a tensor
is an integer mantissa and an integer binary exponent; a tensor is a version (2), four integers
samples, k, rows, columns, and raw little-endian float32. Layers stand in the order in which they
compute; each begins with the length-prefixed name of its type.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_PARAMETERISED = re.compile(rb"\x01\x05con_4|\x01\x07affine_|\x01\x04fc_2")


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer that has parameters.

    Attributes:
        kind: "con_4" (convolution), "affine_" (per-channel scale and shift) or "fc_2" (linear).
        values: its parameter tensor, flattened: weights then biases, or scales then shifts.
        fields: a convolution's filters, rows, columns, strides and paddings; a linear layer's
            outputs and inputs; empty for the others.
    """

    kind: str
    values: NDArray[np.float32]
    fields: Mapping[str, int]


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def integer(self) -> int:
        control = self.data[self.position]
        size = control & 0x0F
        end = self.position + 1 + size
        if not 1 <= size <= 8 or end > len(self.data):
            raise ValueError(f"no integer at byte {self.position}")
        value = int.from_bytes(self.data[self.position + 1 : end], "little")
        self.position = end
        return -value if control & 0x80 else value

    def tensor(self) -> NDArray[np.float32]:
        if self.integer() != 2:
            raise ValueError(f"no tensor at byte {self.position}")
        count = self.integer() * self.integer() * self.integer() * self.integer()
        end = self.position + 4 * count
        if count < 0 or end > len(self.data):
            raise ValueError(f"the tensor at byte {self.position} is cut short")
        values = np.frombuffer(self.data, "<f4", count, self.position).astype(np.float32)
        self.position = end
        return values


def read_layers(data: bytes) -> list[Layer]:
    """Every layer with parameters, from the input to the output.

    Raises:
        ValueError: the bytes are not such a network.
    """
    reader = _Reader(data)
    layers: list[Layer] = []
    # Between two parameter tensors stand only layers without parameters, a few hundred bytes.
    while found := _PARAMETERISED.search(data, reader.position):
        reader.position = found.end()
        kind = found.group()[2:].decode("ascii")
        fields: dict[str, int] = {}
        if kind == "fc_2":
            fields = {"outputs": reader.integer(), "inputs": reader.integer()}
        values = reader.tensor()
        if kind == "con_4":
            names = (
                "filters",
                "rows",
                "columns",
                "stride_rows",
                "stride_columns",
                "padding_rows",
                "padding_columns",
            )
            fields = {name: reader.integer() for name in names}
        layers.append(Layer(kind, values, fields))
    if not layers:
        raise ValueError("no layer of a dlib network in these bytes")
    return layers
