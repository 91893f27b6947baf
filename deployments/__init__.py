"""Ray Serve deployments: the service on a cluster, or on one machine.

The service:

app: the composition root.
exposed_secrets: secrets where Ray shows them, refused.
ray_ports: clusters whose own ports ask nobody, refused.
ingress: the REST API.
engine: the engine of one base model.
flow_control: bodies between Serve's proxy and a replica, bounded.

The backends of the API:

engines: requests to engines, asked again where a replica is lost.
engine_starts: starts of engines.
engine_choice: the kind of a base model's engine: ours, or vLLM.
engine_environment: the Python environments of engines on the nodes, checked.
engine_applications: their applications: how many, in how much memory, of which version.
engine_room: room for another engine, for which idle ones end.
engine_memory: the memory of an engine's replica.
engine_failures: starts that have failed, and the pauses of vLLM after them.
engine_fallback: the kind that an engine is started as after a failure.
engine_versions: what an engine's application was deployed with.
pieces: the pieces of a streamed answer.
job_logs: the logs of training programs.
health: the state of the cluster.
dataset_statistics: statistics of datasets in Ray tasks.
rendered_rows: rows as the model reads them, rendered in Ray tasks.
task_failures: errors of Ray tasks, as the service tells them.
dataset_sweep: deletion of unfinished uploads, once at the start.
metrics_sender: sends a process's metrics to the tracker.

One machine:

access: the first admin's key, and the address that Serve listens on.
local: `sienn serve`.
local_cluster: a Ray cluster of one node.
"""
