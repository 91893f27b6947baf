"""Jobs, datasets and exports: the records, the database, and the tracker that moves them along.

schema: datasets and jobs, and the table of allowed status changes.
export_schema: exports.
deletion_schema: deletions whose files are yet to go.
news_schema: news of jobs behind a place.
audit_schema: questions to the audit log.
webhook_schema: webhooks and their deliveries.
webhook_payloads: payloads of webhooks.
webhook_signatures: signatures of webhooks.
ids: the form of ids.
tracker: the JobTracker actor, the only writer of the database.
run_inputs: a job and its datasets as the run that training takes.
job_facts: facts about a job, as the status response shows them.
starts: starts from another job's adapter.
shared_rows: rows that datasets of one job have in common.
plain_text: plain text out of what programs print.
naming: limits of names and labels.
tracker_protocol: the tracker's calls, in words.
deployment: a deployment of the service, and how a tracker stands to it.
change_requests: request ids and deadlines of changes.
tracker_start: starts the tracker, or replaces one of other code or settings.
transitions: allowed changes of status, of jobs and exports.
store/: the database behind the job tracker.
supervision/: threads that follow what Ray runs: jobs and exports; and what they leave.
client/: the callers' side of the job tracker.
"""
