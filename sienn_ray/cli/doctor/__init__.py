"""`sienn doctor`: whether this machine can serve, without a running service.

findings: lines with a level and a way out.
machine: Python, packages, CPUs, memory and GPUs.
ports: ports, and who has them.
places: home folder, storage and job database.
hub: base models, on this machine and on the hub.
command: the command, which runs every check with a deadline.
"""
