"""A dictionary of tensors out of a file's bytes, in no more memory than a few times the file's.

Nothing in the file is executed, and nothing in it can claim more than is there: its parts are not
compressed, and its pickle names nothing but what a dictionary of tensors is made of. Knows
nothing about what the numbers are.
"""

import io
import pickletools
import re
import zipfile

import torch
from torch import Tensor

_PARTS = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_tensor_v2"
    r"|torch (Float|Double|Half|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage"
)


def read(data: bytes) -> dict[str, Tensor]:
    """What `torch.save` wrote of a dictionary of tensors.

    Returns:
        Tensors on the CPU, whose numbers are all there and finite.

    Raises:
        ValueError: it is something else; the message goes on after the file's name.
    """
    _require_plain(data)
    try:
        tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged or hostile bytes fail in any way they like
        raise ValueError("holds something else than tensors, or is damaged") from error
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and _is_plain(value) for name, value in tensors.items()
    ):
        raise ValueError("is not a dictionary of tensors")
    # A tensor may be a view that repeats one number without end.
    if sum(value.numel() * value.element_size() for value in tensors.values()) > len(data):
        raise ValueError("claims to hold more numbers than it has")
    if not all(map(is_finite, tensors.values())):
        raise ValueError("holds numbers that are not finite")
    return tensors


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds neither infinity nor NaN."""
    return not tensor.is_floating_point() or bool(tensor.float().isfinite().all())


def _require_plain(data: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
            modest = sum(member.file_size for member in members) <= len(data)
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            named = (
                {
                    str(argument)
                    for name in pickles
                    for operation, argument, _ in pickletools.genops(archive.read(name))
                    if operation.name == "GLOBAL"
                }
                if stored and modest
                else set()
            )
    except Exception as error:
        raise ValueError("holds something else than tensors, or is damaged") from error
    if not (stored and modest):
        raise ValueError("has compressed parts, which could unpack to any size")
    if not all(map(_PARTS.fullmatch, named)):
        raise ValueError("holds something else than tensors, or is damaged")


def _is_plain(value: object) -> bool:
    """Whether a value is a tensor whose numbers are all there."""
    return (
        isinstance(value, Tensor) and value.layout is torch.strided and value.device.type == "cpu"
    )
