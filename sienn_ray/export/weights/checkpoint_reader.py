"""The tensors of a base model's safetensors files, one at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sienn_ray.errors import ExportError

if TYPE_CHECKING:
    import torch

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
# safetensors' names of types, with the bytes of a value.
_SIZE_OF = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and type of a tensor, known before it is read.

    Args:
        shape: Its shape.
        dtype: safetensors' name of its type, such as "BF16".
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def num_values(self) -> int:
        """The number of values in the tensor."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def size_bytes(self) -> int:
        """Bytes of its values."""
        return self.num_values * _SIZE_OF[self.dtype]


class CheckpointReader:
    """A folder of safetensors files, whole or in shards.

    Args:
        folder: The folder.

    Raises:
        ExportError: It has none, or tensors that are quantized.
    """

    def __init__(self, folder: Path) -> None:
        self._file_of = _files(folder)
        self.specs: Mapping[str, TensorSpec] = self._read_specs()

    def _read_specs(self) -> dict[str, TensorSpec]:
        from safetensors import safe_open

        specs: dict[str, TensorSpec] = {}
        for path in sorted(set(self._file_of.values())):
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118  (not a mapping)
                    part = file.get_slice(name)
                    specs[name] = TensorSpec(tuple(part.get_shape()), part.get_dtype())
                    if specs[name].dtype not in _SIZE_OF:
                        raise ExportError(
                            f"{path.name} keeps '{name}' as {specs[name].dtype}; export from a base model with weights "
                            "in floating point"
                        )
        return specs

    def read(self, name: str) -> torch.Tensor:
        """One tensor, as it is stored; not to be changed, since it may be the mapped file.

        The file is mapped anew for each, so that the pages of one go when it does.
        """
        from safetensors import safe_open

        with safe_open(self._file_of[name], "pt") as file:
            tensor: torch.Tensor = file.get_tensor(name)
            return tensor


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ExportError: It can't be read.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"{path.name} can't be read: {error}") from error
    return content


def _files(folder: Path) -> dict[str, Path]:
    """The file of every tensor."""
    index = folder / INDEX_FILE
    if index.is_file():
        return {name: folder / Path(file).name for name, file in read_json(index)["weight_map"].items()}
    whole = folder / WEIGHTS_FILE
    if not whole.is_file():
        raise ExportError(
            f"the base model has no safetensors weights; {folder.name} has neither {WEIGHTS_FILE} nor {INDEX_FILE}"
        )
    from safetensors import safe_open

    with safe_open(whole, "pt") as file:
        return dict.fromkeys(file.keys(), whole)
