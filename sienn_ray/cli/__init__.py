"""The `sienn` command: serve, and everything that the REST API offers, from a shell.

serve: run the service on this machine.
datasets: upload, validate, list and delete datasets, and their versions.
rows: rows as the model reads them.
models: base models; ask, compare and download adapters.
sampling: options of commands that ask a model.
targets: files that commands download to.
health: the health of a running service.
wording: the service's messages in the command's own words.
doctor/: whether this machine can serve.
training: start a fine-tune, and watch it.
jobs: list, show, pause, resume, cancel, retry and delete jobs.
keys: create, list, rotate and revoke API keys.
audit: look at the audit log, and check that nothing of it was changed.
webhooks: create, list, change, rotate, test and delete webhooks; list and repeat deliveries.
durations: durations as in 90d.
limits: what owners may have, and have.
usage: what was used.
exports: request, list, cancel and delete exports.
live: live updates, followed over reconnects.
client: requests to the service; a refusal ends the program.
output: lines, tables and JSON.
__main__: `python -m sienn_ray.cli`.
"""

from __future__ import annotations

import typer

from sienn_ray.cli import audit, datasets, exports, health, jobs, keys, limits, models, rows, training, usage, webhooks
from sienn_ray.cli.doctor.command import doctor
from sienn_ray.cli.serve import serve

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="LoRA fine-tuning of language models on Ray.",
)

app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)(serve)

app.command()(health.health)
app.command()(doctor)

app.command()(datasets.validate)
app.command()(datasets.upload)
app.command("datasets")(datasets.list_datasets)
app.command()(datasets.dataset)
app.command()(datasets.statistics)
app.command()(rows.rows)
app.command()(datasets.append_dataset)
app.command()(datasets.replace_dataset)
app.command()(datasets.dataset_versions)
app.command()(datasets.diff_dataset)
app.command()(datasets.delete_dataset)

app.command("models")(models.list_models)
app.command()(training.train)
app.command()(training.watch)

app.command("jobs")(jobs.list_jobs)
app.command()(jobs.status)
app.command()(jobs.logs)
app.command()(jobs.events)
app.command()(jobs.cancel)
app.command()(jobs.pause)
app.command()(jobs.resume)
app.command()(jobs.retry)
app.command()(jobs.delete_job)

app.command()(models.ask)
app.command()(models.compare)
app.command()(models.download)

app.command()(exports.export)
app.command("exports")(exports.list_exports)
app.command()(exports.cancel_export)
app.command()(exports.delete_export)

app.command()(usage.usage)
app.add_typer(keys.app, name="keys")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(audit.app, name="audit")
app.add_typer(limits.app, name="limits")
