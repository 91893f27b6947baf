"""Download links of exports.

links: links to the files of exports.
signed_links: HMAC signatures of such links.
"""
