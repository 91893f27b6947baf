"""Questions to engines and the answers in each API's shape."""
