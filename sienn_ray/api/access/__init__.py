"""Access to the API: callers, their scopes, their share of things and of requests.

callers: the caller of a request, and what knows callers.
credentials: API keys, tokens and cookies of requests.
make_credentials: makes what knows callers, as the settings say.
key_lookup: API keys of requests, looked up at the tracker and remembered for seconds.
access_tokens: access tokens of this service, made and checked.
session_lookup: sessions of browsers.
session_cookies: their cookies, and the pages that may send requests with them.
rate_gate: permits for requests, as a replica has them.
scopes: the dependency by which a route asks for a scope.
claim_gate: claims of a replica, renewed and settled.
admissions: the claims of one request's answers.
token_estimates: about how many tokens a text has.
caller_engines: the engines as one caller has them.
open_answers: streams, for as long as their listener is let in.
owned_tracker: the tracker as one owner sees it.
"""
