"""A base model's chat template and special tokens, read from its files: loading a tokenizer takes seconds."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sienn_ray import catalog
from sienn_ray.errors import ArtifactError
from sienn_ray.hub import cached_snapshot
from sienn_ray.settings import Settings
from sienn_ray.template_check.gguf_metadata import read_metadata

_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# Of those that tell the special tokens by name, the first that there is.
_CONFIG_FILE, _MAP_FILE, _TOKENIZER_FILE = "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json"
_TEMPLATE_FILE = "chat_template.jinja"
# No tokenizer has more bytes; a file that has is left alone.
_MAX_FILE_BYTES = 100 * 1024**2
_GGUF_NAMES = {
    "bos_token": "tokenizer.ggml.bos_token_id",  # nosec B105 # a key of metadata
    "eos_token": "tokenizer.ggml.eos_token_id",  # nosec B105 # a key of metadata
    "unk_token": "tokenizer.ggml.unknown_token_id",  # nosec B105 # a key of metadata
    "pad_token": "tokenizer.ggml.padding_token_id",  # nosec B105 # a key of metadata
}
_GGUF_TEMPLATE, _GGUF_TOKENS, _GGUF_TYPES = (
    "tokenizer.chat_template", "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
)  # fmt: skip
_GGUF_CONTROL = 3


@dataclass(frozen=True)
class BaseTemplate:
    """A base model's chat template.

    Args:
        chat_template: Its Jinja; None where the base model has none.
        named_tokens: Special tokens that it reads by name.
        special_tokens: The strings of all special tokens.
    """

    chat_template: str | None
    named_tokens: dict[str, str]
    special_tokens: tuple[str, ...]


def local_template(base_model: str, revision: str | None, settings: Settings) -> BaseTemplate | None:
    """Read a base model's chat template if the model is on this machine.

    Args:
        base_model: Hub id.
        revision: Its commit; None is the main branch, or that of a package.
        settings: Where converted base models are.

    Returns:
        None where it isn't here, or its files say it in another way than usual.
    """
    if snapshot := cached_snapshot(base_model, revision):
        return folder_template(snapshot)
    packaged = catalog.PACKAGED.get(base_model)
    if revision is not None or packaged is None or (folder := packaged.folder()) is None:
        return None
    converted = catalog.converted_folder(base_model, settings.models_dir)
    return folder_template(converted) if converted.is_dir() else _gguf_template(folder / packaged.gguf_file)


def folder_template(folder: Path) -> BaseTemplate | None:
    """Read the chat template in a model's folder; None where its files say it in another way than usual."""
    try:
        config = _json(folder / _CONFIG_FILE)
        template = _text(folder / _TEMPLATE_FILE) or config.get("chat_template")
        if not isinstance(template, str | None):  # several, by name
            return None
        named = dict(_named_tokens({**_json(folder / _MAP_FILE), **config}))
        return BaseTemplate(template, named, tuple(sorted({*_special_tokens(folder, config), *named.values()})))
    except (ValueError, OSError, AttributeError, TypeError):
        return None


def _named_tokens(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name in _NAMES:
        if isinstance(text := _content(config.get(name)), str):
            yield name, text
    if "pad_token" not in config and isinstance(text := _content(config.get("eos_token")), str):
        yield "pad_token", text  # as `load_tokenizer` has it


def _special_tokens(folder: Path, config: dict[str, Any]) -> Iterator[str]:
    others = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    for token in others.values() if isinstance(others, dict) else others:
        if isinstance(text := _content(token), str):
            yield text
    added = list((config.get("added_tokens_decoder") or {}).values())
    for token in added or _json(folder / _TOKENIZER_FILE).get("added_tokens") or []:
        if token.get("special") and isinstance(text := token.get("content"), str):
            yield text


def _content(token: Any) -> Any:
    """A token's string, which may stand in an object with how it is found in text."""
    return token.get("content") if isinstance(token, dict) else token


def _json(path: Path) -> dict[str, Any]:
    found = json.loads(_text(path) or "{}")
    if not isinstance(found, dict):
        raise TypeError(f"{path.name} is no object")
    return found


def _text(path: Path) -> str | None:
    if not path.is_file() or path.stat().st_size > _MAX_FILE_BYTES:
        return None
    return path.read_text(encoding="utf-8")


@functools.lru_cache(maxsize=4)
def _gguf_template(path: Path) -> BaseTemplate | None:
    try:
        found = read_metadata(path, {*_GGUF_NAMES.values(), _GGUF_TEMPLATE, _GGUF_TOKENS, _GGUF_TYPES})
        tokens = found[_GGUF_TOKENS]
        named = {name: tokens[found[key]] for name, key in _GGUF_NAMES.items() if key in found}
        special = {token for token, kind in zip(tokens, found[_GGUF_TYPES], strict=True) if kind == _GGUF_CONTROL}
    except (ArtifactError, KeyError, IndexError, ValueError):
        return None
    return BaseTemplate(found.get(_GGUF_TEMPLATE), named, tuple(sorted({*special, *named.values()})))
