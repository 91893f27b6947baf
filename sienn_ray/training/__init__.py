"""One fine-tune: LoRA on a base model, from the rows of a dataset to a published adapter.

config: hyperparameters, with their limits.
upper_bounds: upper bounds that settings raise.
options: hyperparameters as options of a command line.
spec: the messages between the driver and its workers.
trainer: one fine-tune by Ray Train.
resources: the resources of workers, and waiting for them.
reporting: progress reports.
signs_of_life: heartbeats within long calls.
timeline: the seconds between submission and first step.
failure_budget: the failures that a run may have in a row.
failures: reasons for a failed run.
stopping: the end of a program that Ray stops.
temporary_folders: folders that a later process can clear away.
unfinished: checkpoints that were written in part.
progress_log: progress as lines of the log.
process_setup: the set-up of a run's processes.
garbage: the rate of Python's garbage collection.
publication: the files of an adapter.
record: `training_run.json`, for repeating a run.
model_card: the README.md of an adapter.
ray_worker: the function that Ray Train runs.
worker: the group of workers, as a protocol, and what they exchange.
ray_train_worker: a worker of a Ray Train run.
preparation: base model and adapter, made ready for the loop.
hardware: precision, threads and memory.
recomputation: activations computed again instead of kept.
compilation: compiled layers.
liger: Liger's kernels in a base model.
sharding: a base model shared out among workers (FSDP2).
loop: the training loop.
steps: rows per optimizer step, over workers and micro batches.
prefetch: the next batches, made in a thread.
collation: micro batches of a step, made ahead.
micro_batches: the division of a step's examples.
micro_batch_limits: the most that a micro batch may hold.
token_budget: tokens of a micro batch, by a worker's memory.
gradients: gradients of one optimizer step.
step_loss: the loss of a step, read once.
loss_scale: the scale of a loss whose gradients are float16.
schedules: learning rate schedules.
long_rows: rows with more tokens than there is room for.
evaluation: loss over the rows held out.
rewards: rewards of chosen and rejected answers.
advice: warnings before a run over preferences.
preference_signals: warnings while it goes on.
checkpoint: checkpoints.
checkpoint_files: the names of its files, and its adapter.
run_state: the position of a run in its checkpoints.
hyperparameters: every hyperparameter, for the API and both command lines.
methods: training methods by their names, in words.
summary: the summary of a completed run.
loss/: losses over packed rows.
adapter/: adapters on a base model.
"""
