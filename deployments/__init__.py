"""Ray Serve deployments: the service on a cluster, or on one machine.

The service:

app: the composition root.
ingress: the REST API.
engine: the engine of one base model.
flow_control: bodies between Serve's proxy and a replica, bounded.

The backends of the API:

engines: requests to engines, asked again where a replica is lost.
engine_starts: starts of engines.
pieces: the pieces of a streamed answer.
job_logs: the logs of training programs.
ray_logs: Ray's APIs for them.
health: the state of the cluster.
dataset_statistics: statistics of datasets in Ray tasks.
dataset_sweep: deletion of unfinished uploads, once at the start.
metrics_sender: sends a process's metrics to the tracker.

One machine:

local: `sienn serve`.
local_cluster: a Ray cluster of one node.
"""
