"""What a process that decodes strangers' files gives up before it reads one.

Memory, processor time, files and sockets beyond what it has, new privileges, and the system calls
that decoding does not need: `engine.media.clip_decoder` and `engine.media.photo_decoder` call
`limit` first, and `close` once everything is loaded. Imports nothing of the package, because
`engine.media.clip_decoder` loads this file by its path. Knows nothing about files' formats.
"""

import ctypes
import errno
import resource
import sys

_ALLOW = 0x7FFF0000
_FAIL_WITH = 0x00050000
_MASKED_EQUAL = 7
_CLONE_THREAD = 0x00010000
_SECCOMP_LIBRARY = "libseccomp.so.2"
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_DESCRIPTORS = 3  # standard input, output and error

SYSTEM_CALLS = (
    *("read", "write", "readv", "writev", "lseek", "close", "fstat", "newfstatat", "ioctl"),
    *("poll", "ppoll", "select", "pselect6"),
    *("mmap", "mmap2", "munmap", "mremap", "mprotect", "madvise", "brk"),
    *("futex", "futex_time64", "set_robust_list", "rseq", "sched_yield", "sched_getaffinity"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall"),
    *("clock_gettime", "clock_gettime64", "clock_nanosleep", "nanosleep", "gettimeofday"),
    *("getpid", "gettid", "getrandom", "getrusage", "sysinfo", "prctl", "exit", "exit_group"),
)
"""All that a decoder may ask the kernel for. Not among them: opening and creating files, sockets,
other processes, signals to others, other limits."""


def limit(memory_bytes: int, processor_s: int) -> None:
    """Limit memory and processor time, and allow no file to be written. Files can still be read."""
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, processor_s),
    ):
        resource.setrlimit(kind, (most, most))


def close() -> tuple[str, ...]:
    """Allow no descriptor beyond the three standard ones, and few system calls.

    Returns:
        What is in force here beyond resource limits, by name.
    """
    in_force = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, _DESCRIPTORS))
    keep_memory_private()
    if _set_attribute(_PR_SET_NO_NEW_PRIVS, 1):
        in_force.append("no-new-privileges")
    if _filter is not None and _filter():
        in_force.append("seccomp")
    return tuple(in_force)


def keep_memory_private() -> bool:
    """Keep other processes of this user from reading this one's memory and environment.

    A process that holds keys calls it before it starts a decoder: it is no longer dumpable
    (prctl(2)), so /proc/PID/environ and /proc/PID/mem are root's. No effect elsewhere than on
    Linux.

    Returns:
        Whether it is in force.
    """
    return _set_attribute(_PR_SET_DUMPABLE, 0)


def _set_attribute(option: int, value: int) -> bool:
    """Set an attribute of this process (prctl(2)); whether that worked."""
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)


class _Comparison(ctypes.Structure):
    """libseccomp's scmp_arg_cmp: what one argument of a system call must be."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("mask", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
    )


class _Seccomp:
    """A filter of system calls, by libseccomp, which knows their numbers on every processor.

    The library is loaded before files are closed to this process, and the filter is loaded into
    the kernel by calling this.
    """

    def __init__(self) -> None:
        library = ctypes.CDLL(_SECCOMP_LIBRARY)
        library.seccomp_init.restype = ctypes.c_void_p
        library.seccomp_init.argtypes = [ctypes.c_uint32]
        library.seccomp_rule_add_array.argtypes = [
            *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint),
            ctypes.POINTER(_Comparison),
        ]
        library.seccomp_load.argtypes = [ctypes.c_void_p]
        self._library = library

    def __call__(self) -> bool:
        context = self._library.seccomp_init(_FAIL_WITH | errno.EPERM)
        if not context:
            return False
        for name in SYSTEM_CALLS:
            self._add(context, _ALLOW, name)
        # libheif decodes in a thread, even where it is the only one. Arguments of clone3 lie in
        # memory, where a filter cannot look; without it libc starts threads by clone.
        thread = _Comparison(0, _MASKED_EQUAL, _CLONE_THREAD, _CLONE_THREAD)
        self._add(context, _ALLOW, "clone", thread)
        self._add(context, _FAIL_WITH | errno.ENOSYS, "clone3")
        return bool(self._library.seccomp_load(context) == 0)

    def _add(self, context: int, action: int, name: str, *comparisons: _Comparison) -> None:
        number = self._library.seccomp_syscall_resolve_name(name.encode("ascii"))
        if number >= 0:  # this processor has it
            array = (_Comparison * len(comparisons))(*comparisons)
            self._library.seccomp_rule_add_array(context, action, number, len(array), array)


def _seccomp() -> _Seccomp | None:
    if sys.platform != "linux":
        return None
    try:
        return _Seccomp()
    except OSError:  # no libseccomp here
        return None


_filter = _seccomp()
