"""How many threads torch may use, and that they sleep while they wait.

OpenMP's threads spin by default when they have nothing to do, which takes the cores away from
whatever else runs: photos took four times as long on shared cores. It reads its wait policy once,
when torch is loaded, so this comes first. Knows nothing about what is computed.
"""

import logging
import math
import os
import sys
from pathlib import Path

_LOG = logging.getLogger(__name__)
# Asleep at once, a thread wakes too late for the next small operation: passive alone made two
# cores as slow as one. A thousand turns (microseconds) keep two thirds of what endless spinning
# gains on quiet cores, and lose a fifth, not four fifths, on shared ones.
_SPINS = "1000"
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def configure(threads: int = 0) -> int:
    """Set torch's threads, before its first operation; loads torch. Again does no harm.

    Args:
        threads: cores that one operation may use; 0 leaves it to `chosen`.

    Returns:
        How many it is.
    """
    count = chosen(threads)
    if "torch" in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
        _LOG.warning(
            "torch was loaded before its threads were set up, and they will spin while they wait: "
            "set OMP_WAIT_POLICY=passive in the environment."
        )
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    os.environ["OMP_NUM_THREADS"] = str(count)

    import torch

    torch.set_num_threads(count)
    if torch.get_num_interop_threads() != 1:
        try:
            # One thread computes; operations side by side would only share the same cores.
            torch.set_num_interop_threads(1)
        except RuntimeError as error:
            _LOG.warning("torch had begun before its threads were set up: %s", error)
    return count


def chosen(threads: int = 0) -> int:
    """How many it is to be: 0 is what OMP_NUM_THREADS says, or else all usable cores."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return threads or (int(said) if said.isdecimal() else 0) or usable_cores()


def usable_cores(cpu_max: Path = _CPU_MAX) -> int:
    """Cores that this process may use: its affinity, and its container's share of time.

    Args:
        cpu_max: the control group's file with "quota period" or "max period" in microseconds.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = cpu_max.read_text("ascii").split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no control group, or no limit ("max")
        return cores
