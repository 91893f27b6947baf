"""The database behind the job tracker.

store: everything in the database.
database: transactions, over SQLite or PostgreSQL.
connections: connections with their timeouts.
tables: the tables, as queries see them.
migrations/: the changes that make the tables.
records: records from rows, and rows from records.
dataset_store: datasets.
dataset_versions: versions of datasets, which the first one holds together.
job_store: jobs.
job_entries: a job's entry, once and while the queue has room.
queue: the order in which jobs and exports start, fair between owners.
quota_checks: what owners may have, checked where rows are written.
quota_store: the quotas of owners.
job_changes: changes of a job, with their events and counts, in one transaction.
job_attempts: fencing of attempts that aren't awaited.
job_reports: progress reports.
job_pauses: pauses and resumptions.
job_ends: cancellation, retry and deletion.
job_events: events, bounded in number.
job_curves: curves, a point for each step reported.
audit_log: the audit log as a table that is only added to.
audit_store: the audit log, written, read and bounded.
webhook_store: webhooks, and their deliveries as owners see them.
webhook_outbox: deliveries to webhooks, written with what they tell.
delivery_store: deliveries to webhooks that are due, and how they went.
news_store: what happened to jobs behind a place.
cursors: where the next page of a list begins.
job_pages: pages of jobs that fit a query.
export_store: exports.
request_store: requests for changes, each carried out once.
api_key_store: API keys, without their secrets.
token_key_store: keys that access tokens are signed with.
refresh_token_store: refresh tokens, without what proves them.
session_store: sessions of browsers.
metric_store: metrics of all processes, added up.
metric_sources: processes that count, and their last batches.
usage_store: usage by day, key and model.
usage_sums: usage as rows that are added to.
metric_sums: counters and histograms as rows.
overview: numbers over all jobs and datasets.
signing_key: the key of signed links.
deletion_store: deletions whose files are yet to go.
attempt_logs: logs of attempts that are yet to be kept.
sweep_store: what is known of files in storage.
tombstones: the rows that stand for them.
export_records: export records from rows, and their changes.
"""
