"""Threads that follow what Ray runs: jobs and exports; and what they leave.

threads: the threads in which supervisors take their steps.
job_supervisor: starts, stops and follows up jobs.
exit_watch: the exit of programs that have reported their end.
isolation: bulkheads between jobs.
backoff: exponential back-off.
stopwatches: seconds since something changed, for each job.
ray_words: causes and logs out of what Ray says.
deadline: a deadline for what takes no timeout.
refusals: reasons for failed submissions.
ray_jobs: Ray jobs, as a protocol and through Ray's job API.
ray_logs: Ray's APIs for the logs of its jobs.
log_keeper: copies the logs of attempts that have ended to storage.
kept_log: a log as it is kept, bounded and without secrets.
ray_job_client: a client of Ray's job API.
audit_keeper: keeps the audit log within its bounds.
webhook_deliverer: delivers to webhooks what waits in the database.
export_supervisor: starts, stops and follows up exports.
export_runs: exports as Ray tasks.
export_task: the body of an export's Ray task.
storage_sweep: sweeps storage for what no record stands for.
deleter: deletes the files of what was deleted.
export_memory: the memory that an export needs.
"""
