"""ArcFace-style networks in ONNX files, through onnxruntime; an operator's own among them.

What such a file takes and gives is read from the file; how pixels are to be normalised it does not
say. The convention is InsightFace's: RGB, (pixel - 127.5) / 127.5, or raw pixels where the network
begins by normalising them itself. A file `NAME.onnx.json` beside the model overrules it. Knows
nothing about detection; its crops come aligned on the ArcFace template.
"""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor
from torch.nn.functional import normalize

from engine import threads
from engine.errors import ConfigurationError, WeightsError
from engine.vision.align import ARCFACE, ARCFACE_SIZE
from engine.vision.embed import Specification
from engine.vision.embed.onnx_graph import first_operations

if TYPE_CHECKING:  # it takes a while to load, and the other embedders do without it
    import onnxruntime

PREFIX = "onnx:"

_LOG = logging.getLogger(__name__)
_NUMBERS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
_PASSING = {"Cast", "Identity", "Transpose"}
_SHIFTING = {"Add", "Sub"}
_SCALING = {"Div", "Mul"}
_LARGEST_PX = 1024
_LONGEST = 65_536
_CUDA = "CUDAExecutionProvider"


class Sidecar(BaseModel):
    """What `NAME.onnx.json` may say about `NAME.onnx`.

    Attributes:
        mean, scale: the network sees (pixel - mean) / scale, pixels being 0 to 255; by the
            convention where not given.
        channels: in which order it takes them.
        input_px: side of its crops, where the file leaves it open.
        licence: of the weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean: float | None = Field(None, allow_inf_nan=False)
    scale: float | None = Field(None, gt=0, allow_inf_nan=False)
    channels: Literal["RGB", "BGR"] = "RGB"
    input_px: int | None = Field(None, ge=16, le=_LARGEST_PX)
    licence: str = "unknown"


class OnnxNetwork:
    """A network that turns square pictures into one vector each.

    Args:
        path: of its file, for messages.
        model: the file's content, or what was made of it.
        device: where it computes; a GPU where onnxruntime has its CUDA provider.
        said: what is known besides the model.

    Attributes:
        input_px: side of its crops.
        dimension: length of its vectors.
        conventional: whether it sees pixels by the convention for such a model.

    Raises:
        ConfigurationError: onnxruntime is not installed.
        WeightsError: it is not a network that embeds one square picture (weights_corrupt).
    """

    def __init__(self, path: Path, model: bytes, device: torch.device, said: Sidecar) -> None:
        self._path = path
        self._device = device
        self._session = _open(path, model, device)
        self._input, self._output = self._single_ends()
        self._number = _NUMBERS[self._input.type]
        self._batch, self._channels_last, self.input_px = self._shape(said)
        mean, scale = self._convention(model)
        self._mean = mean if said.mean is None else said.mean
        self._scale = scale if said.scale is None else said.scale
        self._channels = said.channels
        self.conventional = (self._mean, self._scale, self._channels) == (mean, scale, "RGB")
        self.dimension = self._measure(self.input_px)

    @torch.inference_mode()
    def embed(self, crops: NDArray[np.uint8]) -> Tensor:
        """See `Embedder`; a vector is the mean of the crop's and its mirror's."""
        if not len(crops):
            return torch.zeros(0, self.dimension, device=self._device)
        vectors = self._features(np.concatenate([crops, crops[:, :, ::-1]]))
        both = torch.from_numpy(vectors[: len(crops)] + vectors[len(crops) :])
        return normalize(both.to(self._device), dim=1)

    def _features(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, side, side, 3) RGB to what the network gives, (n, dimension)."""
        pixels: NDArray[Any] = crops[..., ::-1] if self._channels == "BGR" else crops
        if self._number is not np.uint8:
            pixels = (pixels.astype(np.float32) - np.float32(self._mean)) / np.float32(self._scale)
        if not self._channels_last:
            pixels = pixels.transpose(0, 3, 1, 2)
        pixels = np.ascontiguousarray(pixels, self._number)
        count = self._batch or len(pixels)
        parts = []
        for start in range(0, len(pixels), count):
            part = pixels[start : start + count]
            short = count - len(part)
            fed = np.concatenate([part, np.zeros((short, *part.shape[1:]), part.dtype)])
            (given,) = self._session.run([self._output.name], {self._input.name: fed})
            given = np.asarray(given, np.float32)
            if len(given) != count:
                raise ValueError(f"it gives {len(given)} vectors for {count} pictures")
            parts.append(given.reshape(count, -1)[: len(part)])
        return np.concatenate(parts)

    def _single_ends(self) -> tuple[Any, Any]:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise self._unfit(f"it has {len(inputs)} inputs and {len(outputs)} outputs, not one")
        if inputs[0].type not in _NUMBERS:
            raise self._unfit(f"it takes {inputs[0].type}, not pictures")
        if outputs[0].type not in {"tensor(float)", "tensor(float16)"}:
            raise self._unfit(f"it gives {outputs[0].type}, not vectors")
        return inputs[0], outputs[0]

    def _shape(self, said: Sidecar) -> tuple[int | None, bool, int]:
        """Fixed batch size or None, whether channels come last, and the side in pixels."""
        shape: Sequence[int | str | None] = self._input.shape or []
        if len(shape) != 4 or 3 not in (shape[1], shape[3]):
            raise self._unfit(f"its input has the shape {list(shape)}, not that of RGB pictures")
        channels_last = shape[1] != 3
        height, width = shape[1:3] if channels_last else shape[2:]
        open_ended = said.input_px or ARCFACE_SIZE
        sides = {side if isinstance(side, int) else open_ended for side in (height, width)}
        side = sides.pop()
        if sides:
            raise self._unfit(f"its pictures are not square ({list(shape)})")
        if not 16 <= side <= _LARGEST_PX:
            raise self._unfit(f"its pictures have a side of {side} pixels")
        if said.input_px not in (None, side):
            raise self._unfit(
                f"its pictures have a side of {side} pixels, and {_sidecar_path(self._path)} says "
                f"{said.input_px}"
            )
        batch = shape[0]
        if isinstance(batch, int) and not 1 <= batch <= 1024:
            raise self._unfit(f"it takes {batch} pictures at a time")
        return (batch if isinstance(batch, int) else None), channels_last, side

    def _convention(self, model: bytes) -> tuple[float, float]:
        """InsightFace's mean and scale: raw pixels where the network normalises them itself."""
        leading = set()
        for operation in first_operations(model, self._input.name):
            if operation not in _PASSING | _SHIFTING | _SCALING:
                break
            leading.add(operation)
        if self._number is np.uint8 or (leading & _SHIFTING and leading & _SCALING):
            return 0.0, 1.0
        return 127.5, 127.5

    def _measure(self, side: int) -> int:
        """The vectors' dimension, by embedding noise: shapes in a file may be left open or lie."""
        noise = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
        try:
            vectors = self._features(noise)
        except Exception as error:  # onnxruntime's errors share no other base
            raise self._unfit(f"it fails on a picture: {_first_line(error)}") from error
        if not 2 <= vectors.shape[1] <= _LONGEST:
            raise self._unfit(f"it gives {vectors.shape[1]} numbers a picture")
        if not np.isfinite(vectors).all() or np.allclose(vectors[0], vectors[1], rtol=1e-6):
            raise self._unfit("it does not tell two pictures apart")
        return int(vectors.shape[1])

    def _unfit(self, reason: str) -> WeightsError:
        return WeightsError(
            f"{self._path} is not a network that embeds faces: {reason}. Give an ArcFace-style "
            "model, which turns aligned 112x112 RGB crops into one vector each.",
            code="weights_corrupt",
        )


class OnnxEmbedder:
    """A network in an operator's own file.

    Args:
        name: the file: a name in `folder`, or a path (anything with a slash in it).
        device: see `OnnxNetwork`.
        folder: where names are looked for (FACE_WEIGHTS_DIR).

    Raises:
        ConfigurationError: onnxruntime is not installed.
        WeightsError: the file is missing (weights_missing), cannot be read (weights_unreadable),
            or is not a network that embeds one square picture (weights_corrupt).
    """

    def __init__(self, name: str, device: torch.device, folder: Path) -> None:
        path = _locate(name, folder)
        model = read(path)
        said = _read_sidecar(path)
        self._network = OnnxNetwork(path, model, device, said)
        side = self._network.input_px
        overruled = not self._network.conventional or said.input_px
        self.specification = Specification(
            id=f"{PREFIX}{name}",
            input_px=side,
            reference=ARCFACE * (side / ARCFACE_SIZE),
            dimension=self._network.dimension,
            weights_sha256=_identity(model, said if overruled else None),
            licence=said.licence,
        )

    def embed(self, crops: NDArray[np.uint8]) -> Tensor:
        """See `Embedder`; a vector is the mean of the crop's and its mirror's."""
        return self._network.embed(crops)


def read(path: Path) -> bytes:
    """The file's content.

    Raises:
        WeightsError: it cannot be read (weights_unreadable).
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read ({error.strerror}): mend its permissions.",
            code="weights_unreadable",
        ) from error


def _locate(name: str, folder: Path) -> Path:
    if not name:
        raise ConfigurationError(
            f"'{PREFIX}' needs a file: {PREFIX}NAME.onnx for one in {folder}, or {PREFIX}PATH."
        )
    named = "/" not in name and os.sep not in name
    path = folder / name if named else Path(name)
    if not path.is_file():
        raise WeightsError(
            f"There is no file {path}. Put it there"
            + (f", or give its path, as in {PREFIX}./{name}." if named else ", or mend the path."),
        )
    return path


def _open(path: Path, model: bytes, device: torch.device) -> "onnxruntime.InferenceSession":
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigurationError(
            "ONNX embedders need the package onnxruntime, which is not installed. Run `uv sync`."
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads.chosen()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Weights in other files would be looked for in the working directory, and would not be in the
    # hash by which vectors are told apart: below a device there is nothing.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", os.devnull
    )
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda":
        if _CUDA in onnxruntime.get_available_providers():
            # As in engine.vision.device: CPU and GPU must agree.
            providers.insert(0, (_CUDA, {"device_id": device.index or 0, "use_tf32": 0}))
        else:
            _LOG.warning(
                "This onnxruntime has no CUDA: %s computes on the CPU. Install onnxruntime-gpu.",
                path,
            )
    try:
        return onnxruntime.InferenceSession(model, options, providers=providers)
    except Exception as error:  # onnxruntime's errors share no other base
        if "xternal" in str(error):
            raise WeightsError(
                f"{path} keeps its weights in other files. Put them into one: "
                "`onnx.save(onnx.load('IN.onnx'), 'OUT.onnx')` with the package onnx.",
                code="weights_corrupt",
            ) from error
        raise WeightsError(
            f"{path} is not an ONNX model that onnxruntime can run ({_first_line(error)}).",
            code="weights_corrupt",
        ) from error


def _sidecar_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_sidecar(path: Path) -> Sidecar:
    beside = _sidecar_path(path)
    try:
        return Sidecar.model_validate_json(beside.read_bytes())
    except FileNotFoundError:
        return Sidecar()
    except OSError as error:
        raise WeightsError(
            f"{beside} cannot be read ({error.strerror}): mend its permissions.",
            code="weights_unreadable",
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole file"
        known = ", ".join(Sidecar.model_fields)
        raise WeightsError(
            f"{beside} does not describe a model: {place}: {first['msg']}. It is JSON that may "
            f"have {known}.",
            code="weights_corrupt",
        ) from error


def _identity(model: bytes, overruling: Sidecar | None) -> str:
    """The file's sha256; where a sidecar overrules the convention, of the file and of how.

    Vectors made under another normalisation are another embedder's.
    """
    digest = hashlib.sha256(model)
    if overruling is not None:
        digest.update(json.dumps(overruling.model_dump(exclude={"licence"})).encode())
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0].removeprefix("[ONNXRuntimeError] : ").rstrip(".")
