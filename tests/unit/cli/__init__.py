"""The command against the real API, over a socket, with fakes behind it."""
