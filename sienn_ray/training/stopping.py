"""End of a training program when Ray stops it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from threading import Thread

# Ray sends SIGKILL 3 s after SIGTERM.
_RELEASE_TIMEOUT_S = 1.5


def leave_on_sigterm(release: Callable[[], None]) -> None:
    """Have this process let go of what outlives it and be gone, without a word to anybody, once SIGTERM comes.

    An exception raised by the signal's handler, as Ray's own does, is no way out: inside of Ray it turns into a
    `SystemError`, which is taken for a failure of the run. Where it gets through, Ray takes seconds to shut down.
    Ray ends the workers of a program that is gone.

    Args:
        release: Lets go of it, in a thread of its own: the main one may be anywhere.
    """
    # Ray sets a handler of its own in `ray.init`, so this comes after it.
    signal.signal(signal.SIGTERM, lambda *_: Thread(target=_leave, args=(release,), daemon=True).start())


def _leave(release: Callable[[], None]) -> None:
    sys.stderr.write("stopped from outside\n")
    releasing = Thread(target=release, daemon=True)
    releasing.start()
    releasing.join(_RELEASE_TIMEOUT_S)
    os._exit(128 + signal.SIGTERM)
