"""Where the networks run. Knows nothing about what runs there."""

import torch

from engine.errors import DeviceError


def choose_device(wanted: str) -> torch.device:
    """The device for "auto", "cpu" or "cuda".

    "auto" takes a GPU where there is one; "cuda" never falls back in silence.

    Raises:
        DeviceError: "cuda" was asked for and there is none, or the word is another.
    """
    if wanted not in {"auto", "cpu", "cuda"}:
        raise DeviceError(f"There is no device '{wanted}'. Use auto, cpu or cuda.")
    if wanted == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        # Half of float32's digits would be lost in convolutions: galleries built on a CPU and
        # faces seen by a GPU must agree.
        torch.backends.cudnn.allow_tf32 = False
        return torch.device("cuda", torch.cuda.current_device())
    if wanted == "auto":
        return torch.device("cpu")
    raise DeviceError(
        "cuda was asked for, but torch sees no GPU here. Check `nvidia-smi` and the driver, or set "
        "ENGINE_DEVICE=cpu."
    )


def memory_bytes(device: str) -> dict[str, int]:
    """How much of a GPU's memory is in use, by whom.

    Args:
        device: "cuda:0", for example.

    Returns:
        "tensors" are this process', "reserved" is what it keeps for them, "used" is everybody's.
    """
    free, total = torch.cuda.mem_get_info(device)
    return {
        "tensors": torch.cuda.memory_allocated(device),
        "reserved": torch.cuda.memory_reserved(device),
        "used": total - free,
    }
