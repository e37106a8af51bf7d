"""One process at a time, by a lock file. Knows nothing about what it is for.

The file stays: whoever waits has it open, and would not meet whoever made another one.
"""

from collections.abc import Callable
from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, Timeout


def alone(file: Path, held: Callable[[], object]) -> AcquireReturnProxy[FileLock]:
    """A lock for a `with` block, waited for where another process has it.

    Args:
        file: the lock's; its folder must exist.
        held: called before waiting; whoever will not wait raises.
    """
    lock = FileLock(file)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        held()
    return lock.acquire()
