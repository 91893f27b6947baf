"""Download links and deletion of exports.

links: links to the files of exports.
signed_links: HMAC signatures of such links.
deletion: deletion of exports with their files.
"""
