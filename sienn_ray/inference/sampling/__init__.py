"""The choice of each next token."""
