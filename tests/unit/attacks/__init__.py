"""Attacks, a family in each module; docs/attacks.md lists them with what protects the service."""
