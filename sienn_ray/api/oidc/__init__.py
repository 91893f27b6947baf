"""An outside issuer of OpenID Connect: its tokens, and logins of browsers at it.

fetches: JSON documents of an issuer, within bounds of time and size.
issuer: what an issuer says of itself, and its keys, remembered.
tokens: tokens of an issuer, checked, and the callers that they stand for.
login: a login of a browser: authorization code, PKCE, state and nonce.
local_paths: paths of this service that a login may lead back to.
"""
