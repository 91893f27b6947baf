"""Health checks and metrics.

numbers: numbers of machine and service.
monitoring: the health checks, CPU meter and metrics sender of a process.
health_checks: checks of the service and everything beneath.
check_runner: checks with deadlines that may hang.
machine: CPU, memory and disk of the machine or container.
metrics_flusher: sends a process's metrics to the tracker.
prometheus: the tracker's samples as Prometheus text.
"""
