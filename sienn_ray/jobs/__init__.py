"""Jobs, datasets and exports: the records, the database, and the tracker that moves them along.

Records:

schema: datasets and jobs, and the table of allowed status changes.
export_schema: exports.
ids: the form of ids.

The tracker:

tracker: the JobTracker actor, the only writer of the database.
client: the caller's side of it.
session: a training program's connection to it.
commands: commands to a run, in the answers to its reports.

The database:

store: everything in the database.
database: the connection, SQLite or PostgreSQL.
tables: the tables, as queries see them.
migrations/: the changes that make the tables.
records: records from rows, and rows from records.
dataset_store: datasets.
job_store: jobs.
job_entries: a job's entry, once and while the queue has room.
queue: the order in which jobs start.
job_changes: changes of a job, with their events and counts, in one transaction.
job_reports: progress reports.
job_pauses: pauses and resumptions.
job_ends: cancellation, retry and deletion.
job_events: events, bounded in number.
job_curves: curves, a point for each step reported.
job_pages: pages of jobs that fit a query.
export_store: exports.
metric_store: metrics of all processes, added up.
metric_sums: counters and histograms as rows.
overview: numbers over all jobs and datasets.
signing_key: the key of signed links.

Supervision:

supervision: the threads in which supervisors take their steps.
supervisor: starts, stops and follows up jobs.
ray_jobs: Ray jobs, as a protocol and through Ray's job API.
ray_job_client: a client of Ray's job API.
export_supervisor: starts, stops and follows up exports.
export_runs: exports as Ray tasks.
export_task: the body of an export's Ray task.
export_memory: the memory that an export needs.
"""
