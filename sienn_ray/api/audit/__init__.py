"""Audit log of requests, as far as the tracker doesn't write it together with what it changes.

audit_trails: follows each request, and reports those that were refused or have changed nothing.
recorder: collects what is reported, bounded, and sends it to the tracker.
"""
