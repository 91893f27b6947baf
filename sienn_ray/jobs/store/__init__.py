"""The database behind the job tracker.

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
export_records: export records from rows, and their changes.
"""
