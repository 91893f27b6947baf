"""Threads that follow what Ray runs: jobs and exports."""
