"""Access control: callers, their scopes and their API keys.

principals: a caller, with its scopes and its owner.
claims: things at once and tokens per minute, counted for all replicas.
quotas: what one owner may keep, and have waiting or running.
rate_limits: requests of one client within moving windows, counted for all replicas.
usage: what was used, by day, key and model.
api_keys: API keys, and their form as a text.
"""
