"""Guards against other web sites' pages in a visitor's browser.

cross_origin: CORS headers for the web sites that are let in.
origins: refusal of requests that other web sites have a browser send.
hosts: refusal of requests under another host's name.
security_headers: headers that tell a browser what not to do with a response.
"""
