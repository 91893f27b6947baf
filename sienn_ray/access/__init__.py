"""Access control: callers, their scopes, and what they prove themselves with.

principals: a caller, with its scopes and its owner.
owners: names of owners.
claims: things at once and tokens per minute, counted for all replicas.
quotas: what one owner may keep, and have waiting or running.
rate_limits: requests of one client within moving windows, counted for all replicas.
remembered: answers that are remembered for a while, no more than so many.
secret_texts: random texts that prove something, and their hashes.
audit: entries of the audit log.
audit_trail: trails of requests, for the audit log.
usage: what was used, by day, key and model.
api_keys: API keys, and their form as a text.
jwts: JSON Web Tokens: headers, signatures and times.
token_lifetimes: how long these may live.
token_claims: claims of the access tokens that this service signs.
token_keys: the keys that it signs them with.
refresh_tokens: tokens that are exchanged for new access tokens, once each.
sessions: sessions of browsers.
claim_rules: the caller that the claims of an outside issuer stand for.
"""
