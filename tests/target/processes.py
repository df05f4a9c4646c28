"""Child processes that do not outlive us."""

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """For `preexec_fn`: the kernel ends this child should its parent be killed outright.

    The kernel counts the end of the starting *thread* as the parent's death, so start such a
    child from the main thread.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def signal_group(group: int, number: int) -> bool:
    """Signals a process group; False when nothing of it is left. Signal 0 only looks."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True
