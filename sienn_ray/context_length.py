"""Tokens that a base model reads at once, as its configuration says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sienn_ray.errors import InvalidInputError

# Names that configurations have for it.
_NAMES = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx")
_STRETCHING = "yarn"


def context_tokens_of(config: Mapping[str, Any]) -> int | None:
    """Return the most tokens that a base model reads; None where its configuration names none.

    Most scaled positions are counted in `max_position_embeddings` already; YaRN's factor (Peng et al. 2023,
    arXiv:2309.00071) may be one on top of it.

    Example:
        >>> context_tokens_of({"max_position_embeddings": 32768, "rope_scaling": {
        ...     "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}})
        131072
    """
    inner = config.get("text_config")
    texts = [config, inner] if isinstance(inner, Mapping) else [config]
    found = next((size for each in texts for name in _NAMES if (size := _size(each.get(name)))), None)
    if found is None:
        return None
    return max(found, *(_stretched(each, found) for each in texts))


def check_context(base_model: str, context_tokens: int | None, max_length: int) -> None:
    """Refuse rows that are longer than what a base model reads.

    Raises:
        InvalidInputError: They are.
    """
    if context_tokens is not None and max_length > context_tokens:
        raise InvalidInputError(
            f"max_length={max_length} is more than the {context_tokens} tokens that base model '{base_model}' reads; "
            f"set max_length to {context_tokens} or less, or choose a base model with a longer context"
        )


def _stretched(config: Mapping[str, Any], found: int) -> int:
    rope = config.get("rope_scaling") or config.get("rope_parameters")
    if not isinstance(rope, Mapping) or rope.get("rope_type", rope.get("type")) != _STRETCHING:
        return 0
    factor = rope.get("factor")
    original = _size(rope.get("original_max_position_embeddings")) or found
    return int(original * factor) if isinstance(factor, int | float) and 1 <= factor <= found else 0


def _size(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
