"""Changes of the database, in order.

0001_datasets_and_jobs: datasets and jobs.
0002_lifecycle_history_metrics: how jobs begin and end, their history, and metrics.
0003_exports: exports, and the key of signed links.
0004_deletions: deletions whose files are yet to go.
0005_supervision: losses since the last progress, and the end of a log.
0006_attempt_logs: logs of attempts that are yet to be kept.
0007_requests: answers to changes, for repeats.
0008_deleted_ends: how deleted jobs ended, for a day.
0009_owners_and_api_keys: owners of datasets and jobs, and API keys.
0010_tokens_and_sessions: keys of access tokens, refresh tokens, and sessions of browsers.
0011_webhooks: webhooks and their deliveries.
0012_audit_log: the audit log, which is only added to.
0013_quotas_and_usage: priorities, turns and limits of owners, usage.
0014_points_by_moment: indexes by which points of curves are found by when they changed.
0015_reading_of_files: guesses and notes on the file of a dataset.
0016_rewards_and_starts: rewards on curves, and the jobs that others start from.
0017_mixtures_and_versions: mixtures of datasets in jobs, versions and sources of datasets.
"""
