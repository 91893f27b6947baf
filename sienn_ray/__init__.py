"""LoRA fine-tuning of language models as a service, on Ray.

api/: the REST API.
cli/: the `sienn` command.
train: the program of one fine-tune, which runs as a Ray job.
jobs/: datasets, jobs and exports in the database, and the tracker that keeps them moving.
training/: one fine-tune, from its rows to the published adapter.
inference/: the engine, which answers with a base model and any of its adapters.
export/: fine-tuned models in the formats of other programs.
datasets/: rows, from a user's file to tokens.
base_model: load a base model and its tokenizer.
storage: artifacts under one fsspec URL.
catalog: the base models that can be fine-tuned, and the sources of their weights.
settings: every setting, in one typed class.
ray_metrics: a mirror of all metrics on Ray's metrics endpoint.
compute_threads: the one thread of a process that computes.
metrics: every metric by name, and how values travel.
errors: the tree of errors.
storage_keys: keys of adapters and checkpoints in storage.
"""

__version__ = "0.2.0"
