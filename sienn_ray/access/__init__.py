"""Access control: callers, their scopes and their API keys.

principals: a caller, with its scopes and its owner.
rate_limits: requests of one client within moving windows, counted for all replicas.
audit: entries of the audit log.
audit_trail: trails of requests, for the audit log.
api_keys: API keys, and their form as a text.
"""
