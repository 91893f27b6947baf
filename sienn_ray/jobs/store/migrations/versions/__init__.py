"""Changes of the database, in order.

0001_datasets_and_jobs: datasets and jobs.
0002_lifecycle_history_metrics: how jobs begin and end, their history, and metrics.
0003_exports: exports, and the key of signed links.
"""
