"""Requests to servers that users name: which may be asked, and how.

addresses: addresses that such requests may go to.
urls: URLs, in their one spelling.
resolver: addresses of names.
rules: limits of such requests.
client: requests to an address that was checked, within a time and a size.
"""
