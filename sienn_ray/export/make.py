"""Make one export: read the base model and the adapter, write what was asked for, and publish it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

from sienn_ray.base_model import load_tokenizer, local_folder
from sienn_ray.datasets.chat_turns import turns_of
from sienn_ray.datasets.prompt import FILE_NAME as PROMPT_FORMAT_FILE
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.export import archive
from sienn_ray.export.gguf.model import GgufModel, ModelTexts, write_lora
from sienn_ray.export.huggingface import model as huggingface
from sienn_ray.export.huggingface.safetensors_writer import plan_shards
from sienn_ray.export.ollama import modelfile as ollama
from sienn_ray.export.options import ExportFormat, ExportOptions, GgufQuantization, folder_key, printable_name
from sienn_ray.export.publication import Publication
from sienn_ray.export.sink import Sink, Write
from sienn_ray.export.targets import target_of
from sienn_ray.export.weights.adapter_reader import Adapter
from sienn_ray.export.weights.merged_weights import MergedWeights
from sienn_ray.local_copies import LocalCopies
from sienn_ray.settings import Settings
from sienn_ray.storage import FileEntry, Storage

# Share of the work that is done, 0 to 1, and what is being done. It raises what is to end the export.
Report = Callable[[float, str], None]

_GGUF_FILE = "model.gguf"


@dataclass(frozen=True)
class ExportRequest:
    """An export to make: the adapter, its base model, and the options.

    Args:
        export_id: Its id.
        job_id: The job that the adapter is of.
        adapter_key: Storage key of the adapter.
        base_model: Hub id.
        name: What the user called the job.
        options: See `ExportOptions`.
        base_model_revision: The commit that the adapter was trained on; None is what is here, or the main branch.
    """

    export_id: str
    job_id: str
    adapter_key: str
    base_model: str
    name: str | None
    options: ExportOptions
    base_model_revision: str | None = None

    @property
    def key(self) -> str:
        """Storage key of the export's folder."""
        return folder_key(self.job_id, self.export_id)

    @property
    def model_name(self) -> str:
        """The model's name within the files."""
        return self.options.model_name or printable_name(self.name or f"{self.base_model.rpartition('/')[2]}-finetuned")


def make_export(request: ExportRequest, storage: Storage, settings: Settings, report: Report) -> FileEntry:
    """Make an export, or find it made.

    Args:
        request: What to export.
        storage: Where the adapter is and the export goes.
        settings: Where base models are.
        report: Told of the progress, from time to time.

    Returns:
        The published file.

    Raises:
        ExportError: It can't be exported as asked.
        ArtifactError: The adapter is gone or was altered.
        InvalidBaseModelError: The base model can't be had.
        StorageFullError: There is no room for it.
    """
    if not storage.exists(f"{request.key}/manifest.json"):
        report(0.0, "Reading the adapter and the base model")
        _Maker(request, storage, settings, report).make()
    return storage.manifest(request.key).files[0]


class _Maker:
    def __init__(self, request: ExportRequest, storage: Storage, settings: Settings, report: Report) -> None:
        self._request = request
        self._options = request.options
        self._storage = storage
        self._report = report
        self._publication = Publication(storage, request.key)
        manifest = storage.manifest(request.adapter_key)
        archive.check_complete(manifest, request.adapter_key)
        self._archived = archive.adapter_files(manifest)
        self._settings = settings
        # Kept, so that the copy stays while the export reads it.
        self._copies = LocalCopies(settings.adapters_dir, settings.adapter_copies_max_bytes)
        self._adapter_folder = self._copies.fetch(storage, request.adapter_key)

    def make(self) -> None:
        options = self._options
        self._publication.clear()
        match options.format:
            case ExportFormat.HUGGINGFACE:
                self._merged_archive() if options.merged else self._adapter_archive()
            case ExportFormat.OLLAMA:
                self._ollama_archive()
            case ExportFormat.GGUF:
                self._gguf_lora() if options.adapter_only else self._gguf()
            case _:
                assert_never(options.format)

    def _adapter_archive(self) -> None:
        key = self._request.adapter_key
        total_bytes = sum(self._storage.size_bytes(f"{key}/{name}") for name in self._archived)
        self._archive(
            {name: archive.copied(self._storage, f"{key}/{name}") for name in self._archived},
            total_bytes,
            "Packing the archive",
        )

    def _merged_archive(self) -> None:
        base_folder, adapter = self._base_folder(), Adapter(self._adapter_folder)
        weights = MergedWeights(base_folder, adapter)
        shards = plan_shards(weights.specs, huggingface.MAX_SHARD_BYTES)
        total_bytes = sum(shard.size_bytes for shard in shards)
        # The archive is whole soon after its last shard, so that one needn't be kept.
        to_keep_bytes = total_bytes - shards[-1].size_bytes - self._publication.kept_bytes
        self._publication.check_room(total_bytes + to_keep_bytes)
        texts = huggingface.model_texts(self._request.base_model, self._request.model_name, self._request.job_id)
        contents = huggingface.text_files(shards, base_folder, self._adapter_folder, texts)
        writes = huggingface.weight_files(weights, shards)
        for shard in shards[:-1]:
            name = shard.file_name
            writes[name] = self._publication.kept(name, shard.file_bytes, writes[name])
        files = {name: _bytes_writer(content) for name, content in contents.items()} | writes
        self._archive(files, total_bytes, "Merging the adapter into the base model")

    def _gguf(self) -> None:
        model = self._gguf_model()
        self._publication.check_room(model.size_bytes)
        self._publish(self._gguf_writer(model), model.num_values, self._gguf_message)

    def _gguf_lora(self) -> None:
        adapter, base_folder = Adapter(self._adapter_folder), self._base_folder()
        quantization = self._quantization
        total = sum(part.numel() for parts in adapter.layers.values() for part in parts.values())

        def write(file: Sink) -> Iterator[int]:
            return write_lora(file, base_folder, adapter, quantization, self._request.model_name)

        self._publish(write, total, self._gguf_message)

    def _ollama_archive(self) -> None:
        model = self._gguf_model()
        modelfile = self._modelfile(model)
        self._publication.check_room(model.size_bytes)
        script = ollama.install_script(str(self._options.model_name), [ollama.MODELFILE, _GGUF_FILE])
        files = {
            ollama.MODELFILE: _bytes_writer(modelfile.encode()),
            "install.sh": _bytes_writer(script.encode()),
            _GGUF_FILE: self._gguf_writer(model),
        }
        self._archive(files, model.num_values, self._gguf_message)

    def _modelfile(self, model: GgufModel) -> str:
        options = self._options
        tokenizer, prompt_format = self._tokenizer(), self._prompt_format()
        return ollama.OllamaModel(
            gguf_file=_GGUF_FILE,
            turns=turns_of(prompt_format, tokenizer),
            eos_token=tokenizer.eos_token,
            context_length=model.architecture.context_length,
            sampling=options.sampling,
            system=options.system,
            license_text=ollama.license_text(self._request.base_model),
        ).modelfile()

    def _gguf_model(self) -> GgufModel:
        return GgufModel(self._base_folder(), Adapter(self._adapter_folder), self._quantization)

    def _gguf_writer(self, model: GgufModel) -> Write:
        texts = ModelTexts(self._request.model_name, self._request.base_model, self._prompt_format().bound_template)
        return lambda file: model.write(file, texts, self._adapter_folder, self._tokenizer())

    def _base_folder(self) -> Path:
        return local_folder(self._request.base_model, self._settings, self._request.base_model_revision)

    def _tokenizer(self) -> Any:
        return load_tokenizer(self._adapter_folder)

    def _prompt_format(self) -> PromptFormat:
        return PromptFormat.from_json((self._adapter_folder / PROMPT_FORMAT_FILE).read_text())

    @property
    def _quantization(self) -> GgufQuantization:
        """Every format that has a GGUF in it has chosen one."""
        assert self._options.quantization is not None  # nosec B101 # for the type checker
        return self._options.quantization

    @property
    def _gguf_message(self) -> str:
        return f"Writing the GGUF file ({self._quantization})"

    def _archive(self, files: Mapping[str, Write], total: int, message: str) -> None:
        self._publish(lambda file: archive.write_zip(file, files), total, message)

    def _publish(self, write: Write, total: int, message: str) -> None:
        done = 0
        for count in self._publication.publish(target_of(self._options.format).file_name(self._options), write):
            done += count
            self._report(min(1.0, done / max(1, total)), message)


def _bytes_writer(content: bytes) -> Write:
    """A writer of bytes, which count as nothing beside weights."""

    def write(file: Sink) -> Iterator[int]:
        file.write(content)
        yield 0

    return write
