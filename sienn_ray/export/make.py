"""Make one export: read the base model and the adapter, write what was asked for, and publish it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sienn_ray import catalog
from sienn_ray.base_model import load_tokenizer, local_folder
from sienn_ray.datasets.prompt import FILE_NAME as PROMPT_FORMAT_FILE
from sienn_ray.datasets.prompt import PromptFormat, PromptKind
from sienn_ray.export import archive, huggingface, ollama
from sienn_ray.export.adapter_reader import Adapter
from sienn_ray.export.chat_turns import Turns, find_turns
from sienn_ray.export.gguf_model import GgufModel, ModelTexts, write_lora
from sienn_ray.export.merged_weights import MergedWeights
from sienn_ray.export.options import ExportFormat, ExportOptions, folder_key, printable_name
from sienn_ray.export.publication import Publication
from sienn_ray.export.safetensors_writer import plan_shards
from sienn_ray.export.sink import Sink
from sienn_ray.settings import Settings
from sienn_ray.storage import FileEntry, Storage

# Share of the work that is done, 0 to 1, and what is being done. It raises what is to end the export.
Report = Callable[[float, str], None]

_GGUF_FILE = "model.gguf"


@dataclass(frozen=True)
class ExportRequest:
    """What to export.

    Args:
        export_id: Its id.
        job_id: The job that the adapter is of.
        adapter_key: Storage key of the adapter.
        base_model: Hub id.
        name: What the user called the job.
        options: See `ExportOptions`.
    """

    export_id: str
    job_id: str
    adapter_key: str
    base_model: str
    name: str | None
    options: ExportOptions

    @property
    def key(self) -> str:
        """Storage key of the export's folder."""
        return folder_key(self.job_id, self.export_id)

    @property
    def model_name(self) -> str:
        """What the files call the model."""
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
        self._adapter_folder = storage.fetch(request.adapter_key, settings.adapters_dir)

    def make(self) -> None:
        options = self._options
        if options.format is ExportFormat.HUGGINGFACE:
            self._merged_archive() if options.merged else self._adapter_archive()
        elif options.format is ExportFormat.OLLAMA:
            self._ollama_archive()
        else:
            self._gguf_lora() if options.adapter_only else self._gguf()

    def _adapter_archive(self) -> None:
        self._archive(self._request.adapter_key, self._archived, 0.0)

    def _merged_archive(self) -> None:
        base_folder, adapter = self._base_folder(), Adapter(self._adapter_folder)
        weights = MergedWeights(base_folder, adapter)
        shards = plan_shards(weights.specs, huggingface.MAX_SHARD_BYTES)
        total_bytes = sum(shard.size_bytes for shard in shards)
        # The files, and the archive of them.
        self._publication.check_room(2 * total_bytes)
        texts = huggingface.model_texts(self._request.base_model, self._request.model_name, self._request.job_id)
        files = huggingface.merged_files(weights, shards, base_folder, self._adapter_folder, texts)
        done_bytes = 0
        for name, (size_bytes, write) in files.items():
            start_bytes = done_bytes
            for written in self._publication.part(name, write):
                done_bytes += written
                self._report(0.7 * done_bytes / total_bytes, "Merging the adapter into the base model")
            done_bytes = start_bytes + size_bytes
        self._archive(self._publication.parts_key, list(files), 0.7)

    def _gguf(self) -> None:
        model = self._gguf_model()
        self._publication.check_room(model.size_bytes)
        self._follow(
            self._publication.publish(self._options.file_name, self._gguf_writer(model)), model.num_values, 1.0
        )

    def _gguf_lora(self) -> None:
        adapter, base_folder = Adapter(self._adapter_folder), self._base_folder()
        quantization = str(self._options.quantization)
        total = sum(part.numel() for parts in adapter.layers.values() for part in parts.values())

        def write(file: Sink) -> Iterator[int]:
            return write_lora(file, base_folder, adapter, quantization, self._request.model_name)

        self._follow(self._publication.publish(self._options.file_name, write), total, 1.0)

    def _ollama_archive(self) -> None:
        model = self._gguf_model()
        modelfile = self._modelfile(model)
        self._publication.check_room(2 * model.size_bytes)
        self._follow(self._publication.part(_GGUF_FILE, self._gguf_writer(model)), model.num_values, 0.8)
        script = ollama.install_script(str(self._options.model_name), [ollama.MODELFILE, _GGUF_FILE])
        texts = {ollama.MODELFILE: modelfile, "install.sh": script}
        for name, text in texts.items():
            for _ in self._publication.part(name, _bytes_writer(text.encode())):
                pass
        self._archive(self._publication.parts_key, [*texts, _GGUF_FILE], 0.8)

    def _modelfile(self, model: GgufModel) -> str:
        options = self._options
        tokenizer, prompt_format = self._tokenizer(), self._prompt_format()
        return ollama.OllamaModel(
            gguf_file=_GGUF_FILE,
            turns=_turns(prompt_format, tokenizer),
            eos_token=tokenizer.eos_token,
            context_length=model.architecture.context_length,
            sampling=options.sampling,
            system=options.system,
            license_text=license_text(self._request.base_model),
        ).modelfile()

    def _gguf_model(self) -> GgufModel:
        return GgufModel(self._base_folder(), Adapter(self._adapter_folder), str(self._options.quantization))

    def _gguf_writer(self, model: GgufModel) -> Callable[[Sink], Iterator[int]]:
        texts = ModelTexts(self._request.model_name, self._request.base_model, self._prompt_format().chat_template)
        return lambda file: model.write(file, texts, self._adapter_folder, self._tokenizer())

    def _base_folder(self) -> Path:
        return local_folder(self._request.base_model, self._settings)

    def _tokenizer(self) -> Any:
        return load_tokenizer(self._adapter_folder)

    def _prompt_format(self) -> PromptFormat:
        return PromptFormat.from_json((self._adapter_folder / PROMPT_FORMAT_FILE).read_text())

    def _archive(self, key: str, names: list[str], share_done: float) -> None:
        total_bytes = sum(self._storage.size_bytes(f"{key}/{name}") for name in names)

        def write(file: Sink) -> Iterator[int]:
            for piece in archive.iter_zip(self._storage, key, names):
                file.write(piece)
                yield len(piece)

        done_bytes = 0
        for written in self._publication.publish(self._options.file_name, write):
            done_bytes += written
            share = share_done + (1 - share_done) * min(1.0, done_bytes / max(1, total_bytes))
            self._report(share, "Packing the archive")

    def _follow(self, steps: Iterable[int], total: int, share: float) -> None:
        done = 0
        for count in steps:
            done += count
            self._report(share * done / max(1, total), f"Writing the GGUF file ({self._options.quantization})")


def _turns(prompt_format: PromptFormat, tokenizer: Any) -> Turns | None:
    if prompt_format.kind is PromptKind.TEXT:
        return None
    return find_turns(lambda messages, asks: prompt_format.render(tokenizer, messages, add_generation_prompt=asks))


def license_text(base_model: str) -> str:
    """What can be said of a fine-tuned model's licence: that of its base model applies."""
    entry = next((entry for entry in catalog.CATALOG if entry.id == base_model), None)
    known = f" ({entry.license})" if entry else ""
    return (
        f"Fine-tuned from {base_model}, whose licence{known} applies to this model too; its text is at "
        f"https://huggingface.co/{base_model}."
    )


def _bytes_writer(content: bytes) -> Callable[[Sink], Iterator[int]]:
    def write(file: Sink) -> Iterator[int]:
        file.write(content)
        yield len(content)

    return write
