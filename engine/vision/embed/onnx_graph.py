"""Which operations an ONNX model begins with, read from the file without the package onnx.

The format (onnx.proto, protocol buffers): a message is a row of fields, each a number that holds
the field's own number and its kind, then a number, four or eight bytes, or a length and as many
bytes. Of a model only field 7 (graph), of a graph only field 1 (nodes), of a node fields 1
(inputs), 2 (outputs) and 4 (operation) are read. Knows nothing about what operations compute.
"""

from collections.abc import Iterator

_GRAPH, _NODE = 7, 1
_INPUT, _OUTPUT, _OPERATION = 1, 2, 4


def first_operations(model: bytes, name: str) -> list[str]:
    """The operations that the model's input goes through, up to the first that divides its way.

    Args:
        model: the file's content.
        name: of the input.

    Raises:
        ValueError: the bytes are not such a message.
    """
    readers: dict[str, list[tuple[str, list[str]]]] = {}
    for graph in _parts(memoryview(model), _GRAPH):
        for node in _parts(graph, _NODE):
            operation = "".join(_texts(node, _OPERATION))
            outputs = _texts(node, _OUTPUT)
            for source in _texts(node, _INPUT):
                readers.setdefault(source, []).append((operation, outputs))
    found: list[str] = []
    # A name is followed once: a crafted file may go round in a circle.
    while len(step := readers.pop(name, [])) == 1:
        operation, outputs = step[0]
        found.append(operation)
        if len(outputs) != 1:
            break
        name = outputs[0]
    return found


def _texts(message: memoryview, number: int) -> list[str]:
    return [bytes(part).decode("utf-8", "replace") for part in _parts(message, number)]


def _parts(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """The content of every field of that number that has a length."""
    position = 0
    while position < len(message):
        key, position = _number(message, position)
        field, kind = key >> 3, key & 7
        if kind == 0:
            _, position = _number(message, position)
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        elif kind == 2:
            length, position = _number(message, position)
            if position + length > len(message):
                raise ValueError("a field is cut short")
            if field == wanted:
                yield message[position : position + length]
            position += length
        else:
            raise ValueError(f"no field has the kind {kind}")


def _number(message: memoryview, position: int) -> tuple[int, int]:
    """A number of seven bits a byte, the last byte without its high bit, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position
    raise ValueError("a number is cut short")
