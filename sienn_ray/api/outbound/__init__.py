"""Requests that the service sends for users, as far as the API has to do with them.

destinations: checks of URLs that users name.
"""
