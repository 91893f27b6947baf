"""A merged model as one GGUF file, and an adapter alone as a GGUF LoRA."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf

from sienn_ray.errors import ExportError
from sienn_ray.export.gguf.architecture import GgufArchitecture
from sienn_ray.export.gguf.ggml import quantized, row_bytes
from sienn_ray.export.gguf.quantization_mix import MOST, ModelShape, tensor_type
from sienn_ray.export.gguf.tokenizer import add_tokenizer
from sienn_ray.export.gguf.writer import GgufStream
from sienn_ray.export.options import PLAIN_QUANTIZATIONS, GgufQuantization
from sienn_ray.export.sink import Sink
from sienn_ray.export.weights.adapter_reader import Adapter
from sienn_ray.export.weights.merged_weights import MergedWeights

if TYPE_CHECKING:
    import torch

_LAYER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class ModelTexts:
    """Texts of a GGUF about itself and its prompts.

    Args:
        name: The model's.
        base_model: Hub id of the base model.
        chat_template: Jinja template; None for a model of plain text.
    """

    name: str
    base_model: str
    chat_template: str | None


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor that will be written.

    Args:
        name: GGUF's name.
        source: Its name in the base model's files.
        shape: Its shape.
        kind: Its type.
    """

    name: str
    source: str
    shape: tuple[int, ...]
    kind: gguf.GGMLQuantizationType


class GgufModel:
    """The merged model, ready to be written.

    Args:
        base_folder: The base model's folder.
        adapter: The adapter.
        quantization: How its weights are written.

    Raises:
        ExportError: The base model or the adapter can't be had as GGUF.
    """

    def __init__(self, base_folder: Path, adapter: Adapter, quantization: GgufQuantization) -> None:
        self.architecture = GgufArchitecture.of(base_folder)
        self._weights = MergedWeights(base_folder, adapter)
        self._quantization = quantization
        self.tensors = self._plan()

    def _plan(self) -> list[PlannedTensor]:
        names = {source: self.architecture.tensor_name(source) for source in self._weights.specs}
        config = self.architecture.config
        shape = ModelShape(
            num_layers=self.architecture.num_layers,
            group=config.num_attention_heads // config.num_key_value_heads,
            has_output="output.weight" in names.values(),
        )
        plan = []
        for source, name in sorted(names.items(), key=lambda item: _place(item[1] or "")):
            if name is None:
                continue
            sizes = self._weights.specs[source].shape
            layer = int(found.group(1)) if (found := _LAYER.search(name)) else 0
            is_vector = len(sizes) == 1 or name.endswith("_norm.weight")
            kind = (
                gguf.GGMLQuantizationType.F32
                if is_vector
                else tensor_type(self._quantization, name, layer, sizes[-1], shape)
            )
            plan.append(PlannedTensor(name, source, sizes, kind))
        return plan

    @property
    def num_values(self) -> int:
        """Numbers in all tensors."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(math.prod(tensor.shape[:-1]) * row_bytes(tensor.kind, tensor.shape[-1]) for tensor in self.tensors)

    def write(self, file: Sink, texts: ModelTexts, tokenizer_folder: Path, tokenizer: Any) -> Iterator[int]:
        """Write the file; yields the number of values that a step has written.

        Args:
            file: Where to.
            texts: See `ModelTexts`.
            tokenizer_folder: The tokenizer's files.
            tokenizer: The same, loaded.
        """
        writer = GgufStream(file, self.architecture.name)
        self._add_texts(writer, texts)
        self.architecture.add_numbers(writer)
        add_tokenizer(writer, tokenizer_folder, tokenizer, self.architecture.config.vocab_size, texts.chat_template)
        extra = self.architecture.extra_tensors()
        for name, values in extra.items():
            writer.announce(name, values.shape, gguf.GGMLQuantizationType.F32)
        for tensor in self.tensors:
            writer.announce(tensor.name, tensor.shape, tensor.kind)
        writer.begin()
        for values in extra.values():
            for _ in writer.write_tensor([values]):
                pass
        for tensor in self.tensors:
            weight = self.architecture.rows_in_order(tensor.source, self._weights.read(tensor.source))
            for _ in writer.write_tensor(quantized(weight, tensor.kind)):
                pass
            yield weight.numel()

    def _add_texts(self, writer: GgufStream, texts: ModelTexts) -> None:
        writer.add_type(gguf.GGUFType.MODEL)
        writer.add_name(texts.name)
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, texts.base_model.rpartition("/")[2])
        writer.add_base_model_repo_url(0, f"https://huggingface.co/{texts.base_model}")
        writer.add_file_type(_file_type(self._quantization))
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def write_lora(
    file: Sink, base_folder: Path, adapter: Adapter, quantization: GgufQuantization, name: str
) -> Iterator[int]:
    """Write an adapter as a GGUF LoRA, which llama.cpp applies to a GGUF of the base model; gives values written.

    Args:
        file: Where to.
        base_folder: The base model's folder.
        adapter: The adapter.
        quantization: A plain one, of `PLAIN_QUANTIZATIONS`.
        name: The adapter's.

    Raises:
        ExportError: It has what a GGUF LoRA can't say.
    """
    if adapter.config.use_dora:
        raise ExportError("a GGUF LoRA has no DoRA magnitudes; export the merged model: leave out adapter_only")
    if not quantization.is_plain:
        raise ExportError(f"a GGUF LoRA is written as {', '.join(PLAIN_QUANTIZATIONS)}, not {quantization}")
    kind = MOST[quantization]
    architecture = GgufArchitecture.of(base_folder)
    MergedWeights(base_folder, adapter)  # it says what doesn't fit
    writer = GgufStream(file, architecture.name)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(name)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    alpha = float(adapter.config.lora_alpha)
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    tensors = dict(_lora_tensors(architecture, adapter, alpha))
    kinds = {name: _of_rows(kind, values) for name, values in tensors.items()}
    for name, values in tensors.items():
        writer.announce(name, tuple(values.shape), kinds[name])
    writer.begin()
    for name, values in tensors.items():
        for _ in writer.write_tensor(quantized(values, kinds[name])):
            pass
        yield values.numel()


def _lora_tensors(architecture: GgufArchitecture, adapter: Adapter, alpha: float) -> Iterator[tuple[str, torch.Tensor]]:
    """llama.cpp adds B A alpha / r, so what else there is to the scaling goes into B."""
    for layer, parts in sorted(adapter.layers.items(), key=lambda item: _place(item[0])):
        name = architecture.tensor_name(f"{layer}.weight")
        r = parts["a"].shape[0]
        own_alpha = adapter.alpha(layer)
        scaling = own_alpha / math.sqrt(r) if adapter.config.use_rslora else own_alpha / r
        b = architecture.rows_in_order(layer, parts["b"].float()) * (scaling * r / alpha)
        yield f"{name}.lora_a", parts["a"]
        yield f"{name}.lora_b", b


def _of_rows(kind: gguf.GGMLQuantizationType, values: torch.Tensor) -> gguf.GGMLQuantizationType:
    """The type, unless rows don't come in its whole blocks."""
    return gguf.GGMLQuantizationType.F32 if values.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] else kind


def _place(name: str) -> tuple[int, str]:
    """The order of layers; what belongs to none comes first."""
    found = _LAYER.search(name)
    return (int(found.group(1)) if found else -1, name)


def _file_type(quantization: GgufQuantization) -> int:
    prefix = "ALL" if quantization is GgufQuantization.F32 else "MOSTLY"
    return int(gguf.LlamaFileType[f"{prefix}_{quantization}"])
