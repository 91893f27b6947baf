"""LoRA fine-tuning of language models as a service, on Ray.

api/: the REST API.
cli/: the `sienn` command.
train: the program of one fine-tune, which runs as a Ray job.
access/: access control: callers, scopes, API keys.
jobs/: datasets, jobs and exports in the database, and the tracker that keeps them moving.
training/: one fine-tune, from its rows to the published adapter.
inference/: the engine, which answers with a base model and any of its adapters.
export/: fine-tuned models in the formats of other programs.
template_check/: checks of rows against a base model's chat template, before anything is trained.
datasets/: rows, from a user's file to tokens.
base_model: load a base model and its tokenizer.
model_sizes: sizes of a base model's tensors, from metadata alone.
local_copies: copies of adapters on this machine.
module_names: names of the linear modules of a base model.
storage: artifacts under one fsspec URL.
context_length: tokens that a base model reads at once.
admission: the rules by which base models are admitted.
outbound/: requests to servers that users name.
retries: retries with back-off while hub or store are out of reach.
hub: models on the hub and in its local cache.
catalog: the base models that can be fine-tuned, and the sources of their weights.
chat_templates: limits on the rendering of chat templates.
code_version: the version of the running code.
settings: every setting, in one typed class.
ray_metrics: a mirror of all metrics on Ray's metrics endpoint.
precision: the data types that a device multiplies fast.
memory_shortage: errors of allocations.
compute_threads: the one thread of a process that computes.
time_limit: interrupt a thread that takes too much CPU time.
template_probe: a program that tries a chat template out.
metrics: every metric by name, and how values travel.
errors: the tree of errors.
fault_words: what is wrong with a field.
storage_keys: keys of adapters and checkpoints in storage.
"""

__version__ = "0.2.0"
