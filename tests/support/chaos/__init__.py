"""Chaos: killing and suspending a service's processes at random while users work with it.

- `faults`: which processes there are to kill and to suspend.
- `probes`: requests that are sent all the time, and how long they went unanswered after a fault.
- `users`: threads that upload, fine-tune, poll and ask, and keep what was acknowledged.
- `verdict`: comparison of what was acknowledged with what the service has in the end.
- `experiment`: faults at random beside probes and users, for some minutes.
"""
