"""`python -m sienn_ray.cli`."""

from sienn_ray.cli import app

app()
