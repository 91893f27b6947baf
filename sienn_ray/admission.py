"""The rules by which a base model is admitted: by its id, its size, and what its `config.json` says."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from sienn_ray.errors import InvalidBaseModelError

# Real ones have some kilobytes.
MAX_CONFIG_BYTES = 1024 * 1024
CONFIG_FILE, ADAPTER_FILE = "config.json", "adapter_config.json"
_MODEL_TYPE = re.compile(r"[a-z0-9_-]+")
_MAX_SHOWN = 5
_MAX_SHOWN_CHARS = 200
_GB = 1e9


@dataclass(frozen=True)
class AdmissionRules:
    """Limits on the base models that users may name.

    Args:
        allowed: Hub ids, or patterns such as `Qwen/*`; none allows all.
        max_bytes: Most bytes that the files of one may have; None is no limit.
    """

    allowed: tuple[str, ...] = ()
    max_bytes: int | None = None

    def allows(self, base_model: str) -> bool:
        """Return whether an id may be used at all."""
        return not self.allowed or any(fnmatchcase(base_model, pattern) for pattern in self.allowed)

    def check_id(self, base_model: str) -> None:
        """Check that an id may be used at all.

        Raises:
            InvalidBaseModelError: It isn't among those that are allowed.
        """
        if self.allows(base_model):
            return
        more = f" and {len(self.allowed) - _MAX_SHOWN} more" if len(self.allowed) > _MAX_SHOWN else ""
        shown = ", ".join(self.allowed[:_MAX_SHOWN]) + more
        raise InvalidBaseModelError(
            f"base model '{base_model}' isn't allowed here; choose one of {shown}, or ask who runs the service to "
            "add it (SIENN_ALLOWED_BASE_MODELS)"
        )

    def check_size(self, base_model: str, size_bytes: int | None) -> None:
        """Check that a model isn't too large; one of unknown size passes.

        Raises:
            InvalidBaseModelError: It is.
        """
        if self.max_bytes is not None and size_bytes is not None and size_bytes > self.max_bytes:
            raise InvalidBaseModelError(
                f"base model '{base_model}' has {size_bytes / _GB:.1f} GB, and at most {self.max_bytes / _GB:.1f} GB "
                "are taken (SIENN_MAX_BASE_MODEL_BYTES); choose a smaller one"
            )


NO_RULES = AdmissionRules()


def check_config_size(base_model: str, size_bytes: int | None) -> None:
    """Check that a configuration is one by its size, before it is fetched or read.

    Raises:
        InvalidBaseModelError: It is too large.
    """
    if size_bytes is not None and size_bytes > MAX_CONFIG_BYTES:
        raise InvalidBaseModelError(
            f"{CONFIG_FILE} of base model '{base_model}' has {size_bytes} bytes, and at most {MAX_CONFIG_BYTES} are "
            "read; choose another model"
        )


def check_no_adapter(base_model: str, has_adapter: bool) -> None:
    """Refuse a repository with an adapter, which transformers would apply where weights are loaded, and exports not.

    Raises:
        InvalidBaseModelError: It has one.
    """
    if has_adapter:
        raise InvalidBaseModelError(
            f"'{base_model}' holds an adapter ({ADAPTER_FILE}), and only whole models can be fine-tuned; name the base "
            "model that it is for"
        )


def read_config(base_model: str, path: Path) -> dict[str, Any]:
    """Read a `config.json` of a stranger.

    Raises:
        InvalidBaseModelError: It is too large, or no JSON object.
    """
    check_config_size(base_model, path.stat().st_size)
    with path.open("rb") as file:
        text = file.read(MAX_CONFIG_BYTES)
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidBaseModelError(
            f"{CONFIG_FILE} of base model '{base_model}' is no JSON ({type(error).__name__}); choose another model"
        ) from error
    if not isinstance(config, dict):
        raise InvalidBaseModelError(
            f"{CONFIG_FILE} of base model '{base_model}' is no JSON object; choose another model"
        )
    return config


def check_config(base_model: str, config: dict[str, Any]) -> None:
    """Refuse what isn't a causal language model, or needs code from its repository.

    Args:
        base_model: The id, for the message.
        config: The content of the model's config.json.

    Raises:
        InvalidBaseModelError: See above.
    """
    architectures = config.get("architectures") or []
    names = architectures if isinstance(architectures, list) else [architectures]
    if not any(str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        raise InvalidBaseModelError(
            f"'{base_model}' is no causal language model (architectures: {str(architectures)[:_MAX_SHOWN_CHARS]}); "
            "only those can be fine-tuned"
        )
    if not _is_native(str(config.get("model_type", ""))):
        model_type = str(config.get("model_type"))[:_MAX_SHOWN_CHARS]
        raise InvalidBaseModelError(
            f"'{base_model}' needs code from its repository (model_type {model_type!r}), which is never run; choose a "
            "model that transformers supports itself"
        )


def _is_native(model_type: str) -> bool:
    """Whether the installed transformers implements this type (its folder is named after it)."""
    if not _MODEL_TYPE.fullmatch(model_type):
        return False
    module = f"transformers.models.{model_type.replace('-', '_')}"
    return importlib.util.find_spec(module) is not None
