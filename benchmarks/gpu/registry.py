"""All checks, in the order in which they run: what is right before what is fast, and what matters most first."""

from __future__ import annotations

import correctness_graphs
import correctness_serving
import correctness_training
import machine
import serving_speed
import training_peers
import training_speed
import training_variants
from checks import Check


def all_checks() -> tuple[Check, ...]:
    """Return the checks; importing them brings neither torch nor the product along."""
    return (
        *machine.CHECKS,
        *correctness_training.CHECKS,
        *correctness_serving.CHECKS,
        *correctness_graphs.CHECKS,
        *training_speed.CHECKS,
        *training_peers.CHECKS,
        *serving_speed.CHECKS,
        *training_variants.CHECKS,
    )
