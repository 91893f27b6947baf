"""Programs that the service has started for its jobs, to look at and to kill."""

from __future__ import annotations

import psutil

from tests.integration.service import Service


def programs_of(service: Service, job_id: str) -> list[psutil.Process]:
    """The training program of a job, and the shell around it."""
    found = []
    for process in service.processes(""):
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if job_id in words and "python" in words[0]:
            found.append(process)
    return found
