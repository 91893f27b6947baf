"""The data files of a dataset on the hub that make a configuration and a split.

The card of a repository may name them. Else they are told by their paths, as the hub does it: a folder with the name of
the configuration, and a word for the split between other characters of the path. Only files of rows are looked at; code
is never loaded.

https://huggingface.co/docs/hub/datasets-data-files-configuration
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from sienn_ray.datasets.files.extensions import EXTENSIONS, Container, container_of
from sienn_ray.datasets.hub_source import DEFAULT_SPLIT, HubSource
from sienn_ray.datasets.wording import listed
from sienn_ray.errors import InvalidDatasetError

MAX_FILES = 1000
_MAX_PATTERN_CHARS, _MAX_PATTERN_PARTS = 300, 20
# About the data, rather than data.
_NO_DATA = frozenset({"dataset_infos.json", "dataset_info.json", "state.json", "config.json", "package.json"})
# The first of those that as many files are of.
_PREFERRED = (Container.PARQUET, Container.JSON_LINES, Container.JSON, Container.CSV, Container.TEXT)
_SPLIT_WORDS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def files_of(source: HubSource, names: Iterable[str], card: Any) -> list[str]:
    """Choose the files that a source stands for, in their order.

    Args:
        source: What was asked for.
        names: All files of the repository.
        card: The metadata of its card, whatever that is.

    Raises:
        InvalidDatasetError: There are none; the message says what there is.
    """
    data = sorted(name for name in names if _is_data(name))
    splits = _of_card(source, data, card)
    if splits is None:
        splits = _by_split(_of_config(source, _of_one_kind(data)))
    splits = {split: found for split, found in splits.items() if found}
    chosen = splits.get(_split_of(source, splits), [])
    if len(chosen) > MAX_FILES:
        raise InvalidDatasetError(f"{source} has {len(chosen)} files, and at most {MAX_FILES} are read; name a split")
    return chosen


def _split_of(source: HubSource, splits: Mapping[str, Sequence[str]]) -> str:
    if not splits:
        raise InvalidDatasetError(
            f"{source} has no files of rows ({listed(EXTENSIONS)}); for a dataset that is made by code, try the hub's "
            f"own conversion: {HubSource(source.repo, source.config, source.split, 'refs/convert/parquet')}"
        )
    if source.split is None and DEFAULT_SPLIT not in splits and len(splits) == 1:
        return next(iter(splits))
    split = source.split or DEFAULT_SPLIT
    if split not in splits:
        example = HubSource(source.repo, source.config, min(splits), source.revision)
        raise InvalidDatasetError(
            f"{source.repo} has no split '{split}', but {listed(sorted(splits))}; as in {example}"
        )
    return split


def _is_data(name: str) -> bool:
    path = PurePosixPath(name)
    # Nothing may lead out of the folder that is downloaded to.
    is_plain = "\\" not in name and not name.startswith("/") and not any(part.startswith(".") for part in path.parts)
    return is_plain and path.name not in _NO_DATA and _container(name) is not None


def _container(name: str) -> Container | None:
    """The kind of file that a name says; None of one that isn't read."""
    try:
        return container_of(name)
    except InvalidDatasetError:
        return None


def _of_one_kind(names: Sequence[str]) -> list[str]:
    """Files of the kind that most are of; text is data only where there is nothing else."""
    tables = [name for name in names if _container(name) is not Container.TEXT] or list(names)
    counts = Counter(map(_container, tables))
    if not counts:
        return []
    most = min(_PREFERRED, key=lambda kind: -counts[kind])
    return [name for name in tables if _container(name) is most]


def _of_config(source: HubSource, names: Sequence[str]) -> list[str]:
    if source.config is None:
        return list(names)
    found = [name for name in names if source.config in PurePosixPath(name).parts[:-1]]
    if not found:
        folders = sorted({part for name in names for part in PurePosixPath(name).parts[:-1]})
        known = f"; its folders are {listed(folders[:20])}" if folders else ", and its files are in no folders"
        raise InvalidDatasetError(f"{source.repo} has no configuration '{source.config}'{known}; leave it out")
    return found


def _by_split(names: Sequence[str]) -> dict[str, list[str]]:
    """Files by the split that their paths say; without any such word, all are for training."""
    found: dict[str, list[str]] = {split: [] for split in _SPLIT_WORDS}
    for name in names:
        # The file's own name is the nearest.
        for part in reversed(PurePosixPath(name).parts):
            words = set(re.split(r"[^a-z]+", part.lower()))
            splits = [split for split, known in _SPLIT_WORDS.items() if words.intersection(known)]
            if splits:
                found[splits[0]].append(name)
                break
    return found if any(found.values()) else {DEFAULT_SPLIT: list(names)}


def _of_card(source: HubSource, names: Sequence[str], card: Any) -> dict[str, list[str]] | None:
    """Files by split, as the card has them; None where it says nothing of them."""
    items = [each for each in _items(card, "configs") if isinstance(each, dict)]
    configs = [each for each in items if "data_files" in each or isinstance(each.get("data_dir"), str)]
    if not configs:
        return None
    known = {str(each.get("config_name", "default")): each for each in configs}
    name = source.config or _default_config(source, configs, known)
    if name not in known:
        raise InvalidDatasetError(
            f"{source.repo} has no configuration '{name}', but {listed(sorted(known))}; as in "
            f"{HubSource(source.repo, min(known), source.split, source.revision)}"
        )
    config = known[name]
    folder = _folder(config)
    if "data_files" not in config:
        return _by_split(_of_one_kind([name for name in names if name.startswith(folder)]))
    patterns = _patterns(config["data_files"])
    return {
        split: _matching([folder + each.removeprefix("./") for each in of_split], names)
        for split, of_split in patterns.items()
    }


def _folder(config: Mapping[str, Any]) -> str:
    """What the paths of a configuration begin with: its `data_dir`, by which its patterns are meant as well."""
    data_dir = config.get("data_dir")
    parts = [part for part in data_dir.split("/") if part not in ("", ".")] if isinstance(data_dir, str) else []
    return "".join(f"{part}/" for part in parts)


def _default_config(source: HubSource, configs: Sequence[Any], known: Mapping[str, Any]) -> str:
    chosen = next((str(each.get("config_name")) for each in configs if each.get("default") is True), "default")
    if chosen in known:
        return chosen
    if len(known) == 1:
        return next(iter(known))
    raise InvalidDatasetError(
        f"{source.repo} has several configurations: {listed(sorted(known))}; name one, as in "
        f"{HubSource(source.repo, min(known), source.split, source.revision)}"
    )


def _patterns(data_files: Any) -> dict[str, list[str]]:
    """Patterns by split: of one pattern, of a list of them, or of a list with splits."""
    if isinstance(data_files, str):
        return {DEFAULT_SPLIT: [data_files]}
    found: dict[str, list[str]] = {}
    for each in data_files if isinstance(data_files, list) else []:
        if isinstance(each, str):
            found.setdefault(DEFAULT_SPLIT, []).append(each)
        elif isinstance(each, dict):
            path = each.get("path")
            paths = path if isinstance(path, list) else [path]
            split = str(each.get("split", DEFAULT_SPLIT))
            found.setdefault(split, []).extend(text for text in paths if isinstance(text, str))
    return found


def _matching(patterns: Sequence[str], names: Sequence[str]) -> list[str]:
    return [name for name in names if any(_matches(pattern, name) for pattern in patterns)]


def _matches(pattern: str, name: str) -> bool:
    """Return whether a path fits a pattern, in which `**` stands for any folders and `*` for no `/`."""
    parts = pattern.removeprefix("./").split("/")
    if len(pattern) > _MAX_PATTERN_CHARS or len(parts) > _MAX_PATTERN_PARTS:
        return False
    # Places within the path that the pattern so far may have come to.
    path, reached = name.split("/"), {0}
    for part in parts:
        if part == "**":
            reached = set(range(min(reached, default=len(path) + 1), len(path) + 1))
        else:
            reached = {place + 1 for place in reached if place < len(path) and fnmatchcase(path[place], part)}
    return len(path) in reached


def _items(card: Any, name: str) -> list[Any]:
    value = card.get(name) if isinstance(card, Mapping) else getattr(card, name, None)
    return value if isinstance(value, list) else []
