"""Makes one export as the service's task does: `export_run.py MATERIAL FOLDER merged|nothing|QUANTIZATION`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch  # noqa: F401  (an export without weights has imported as much)

from sienn_ray import catalog
from sienn_ray.export.make import ExportRequest, make_export
from sienn_ray.export.options import ExportFormat, ExportOptions, GgufQuantization
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage

BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def main(material: Path, folder: Path, what: str) -> None:
    import peft
    import transformers  # noqa: F401

    assert peft.__version__
    if what == "nothing":
        return
    settings = Settings(home=folder)
    storage = Storage(settings.storage_url)
    if not storage.exists("adapters/job"):
        storage.publish(material / "adapter", "adapters/job")
    place = catalog.converted_folder(BASE_MODEL, settings.models_dir)
    if not place.exists():
        place.parent.mkdir(parents=True)
        place.symlink_to(material / "base")
    options = (
        ExportOptions(format=ExportFormat.HUGGINGFACE, merged=True)
        if what == "merged"
        else ExportOptions(format=ExportFormat.GGUF, quantization=GgufQuantization(what))
    )
    request = ExportRequest(options.export_id("job"), "job", "adapters/job", BASE_MODEL, None, options)
    make_export(request, storage, settings, lambda *_: None)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
