"""The callers' side of the job tracker.

tracker_client: calls to the tracker, asynchronous and not.
tracker_handle: the tracker's actor handle, found by name.
given_datasets: datasets that a training program is given, taken into storage.
run_session: a training program's connection to the tracker.
run_commands: commands to a run, in the answers to its reports.
"""
