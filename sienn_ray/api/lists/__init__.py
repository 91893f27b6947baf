"""Pages and logs that several routes share.

paging: query parameters of lists that come in pages.
completed: completed jobs, which alone have an adapter.
job_datasets: checks of the datasets of a fine-tune.
base_models: the check that a base model exists, with a deadline.
template_checks: checks of datasets against chat templates, with a deadline.
job_status: jobs as responses show them.
rows: rows of datasets as responses show them.
job_pages: lists of jobs, in pages or whole.
whole: lists in pages or whole.
attempt_logs: the logs of a job's attempts as one stream.
shared_statistics: statistics of datasets, computed once for all clients.
bounded_renderings: rows as the model reads them, rendered for a few clients at a time.
"""
