"""The function that Ray Train runs on every worker: from the base model to the end of the loop.

The program that starts a run imports this module without transformers and PEFT, which take seconds.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from sienn_ray.storage import Storage
from sienn_ray.training.methods import Method, method_of
from sienn_ray.training.reporting import Phase, Progress
from sienn_ray.training.spec import LoopResult, LoopSpec, OrderedRows, RunRows
from sienn_ray.training.temporary_folders import clear_left_folders

if TYPE_CHECKING:
    from sienn_ray.datasets.token_stream import TokenStream


def train_loop(loop_config: dict[str, Any]) -> LoopResult:
    """Train on this worker.

    Args:
        loop_config: `{"spec": LoopSpec, "rows": RunRows}`, the one kind of argument that Ray Train passes on.

    Returns:
        How it ended.

    Raises:
        SiennError: It can't go on. Raised rather than returned, so that Ray Train ends the other workers as well: they
            may have met nothing, and would wait for this one.
    """
    spec: LoopSpec = loop_config["spec"]
    rows: RunRows = loop_config["rows"]
    spec.timeline.mark("start_workers")
    clear_left_folders()
    if spec.config.quantization is None:
        leave_out("bitsandbytes")
    from sienn_ray.base_model import load_tokenizer, local_folder
    from sienn_ray.datasets.prompt import PromptFormat
    from sienn_ray.datasets.token_stream import TokenStream
    from sienn_ray.precision import allow_tf32
    from sienn_ray.training.adapter.start import fetched_start
    from sienn_ray.training.hardware import choose_dtype, use_all_cpus
    from sienn_ray.training.loop import FineTune
    from sienn_ray.training.ray_train_worker import RayTrainWorker
    from sienn_ray.training.sharding import load_base_model
    from sienn_ray.training.signs_of_life import signs_of_life

    spec.timeline.mark("import_in_workers")
    worker, config = RayTrainWorker(), spec.config
    method = method_of(spec.row_kind, config.method)
    use_all_cpus(spec.num_cpus)
    allow_tf32()

    def tell() -> None:
        if worker.rank == 0:
            words = f"Loading base model {config.base_model}"
            spec.reporter.report(Progress.of_phase(Phase.LOADING_MODEL, words))

    tell()
    with signs_of_life(tell):  # a large base model may take longer than a run may be silent
        folder = local_folder(config.base_model, spec.settings, config.base_model_revision)
    tokenizer = load_tokenizer(folder)
    prompt_format = PromptFormat.for_rows(spec.row_kind, tokenizer, config.render_options)

    def stream(ordered: OrderedRows) -> TokenStream:
        return TokenStream(
            ordered.stored,
            ordered.order,
            tokenizer,
            prompt_format,
            config.max_length,
            config.long_rows,
            unpairs=method is Method.KTO,
        )

    evaluation = None if rows.evaluation is None else stream(rows.evaluation)
    fetch_start = None
    if spec.start_key is not None:
        storage = Storage(spec.settings.storage_url, spec.settings.outage_patience_s)
        fetch_start = partial(fetched_start, storage, spec.start_key, config, prompt_format)
    run = FineTune(spec, worker, stream(rows.train), evaluation, tokenizer.pad_token_id, fetch_start)
    with run:  # rows are tokenized while the base model is loaded
        dtype = choose_dtype(config.precision, worker.device)
        with signs_of_life(tell):
            base = load_base_model(folder, config, worker, dtype)
        spec.timeline.mark("load_base_model")
        result = run.train(base)
    if worker.rank != 0 or result.is_paused or result.is_fenced:
        return result
    from sienn_ray.training.publication import base_model_facts

    return replace(result, base=base_model_facts(folder, tokenizer, prompt_format))


def leave_out(package: str) -> None:
    """Have a package pass for one that isn't installed, which PEFT would import just because it's there.

    bitsandbytes brings PyTorch's compiler along, a second of a run's start.
    """
    # None is Python's way to say that an import is to fail; one that has happened stays.
    sys.modules.setdefault(package, None)  # type: ignore[arg-type]
