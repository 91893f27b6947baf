"""The set-up of each process of a fine-tune: its program, and the workers that Ray starts for it."""

from __future__ import annotations

import logging
import os
import warnings

from sienn_ray.training import garbage

# Ray's `worker_process_setup_hook` for a job's processes.
HOOK = f"{__name__}.set_up"


def set_up() -> None:
    """Collect garbage rarely, and keep out of the job's log what tells its owner nothing.

    That are the plug-ins of the database's migrations, progress bars, which are lines of a log that nobody can read,
    and what libraries say to each other's authors. Comes too late for a library that was imported before.
    """
    garbage.collect_rarely()
    logging.getLogger("alembic").setLevel(logging.WARNING)
    for name in ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    # Ray puts the name of its process in front of each line of a worker, in colour unless this says otherwise.
    os.environ.setdefault("RAY_COLOR_PREFIX", "0")
