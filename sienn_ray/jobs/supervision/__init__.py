"""Threads that follow what Ray runs: jobs and exports.

threads: the threads in which supervisors take their steps.
job_supervisor: starts, stops and follows up jobs.
ray_jobs: Ray jobs, as a protocol and through Ray's job API.
ray_job_client: a client of Ray's job API.
export_supervisor: starts, stops and follows up exports.
export_runs: exports as Ray tasks.
export_task: the body of an export's Ray task.
export_memory: the memory that an export needs.
"""
