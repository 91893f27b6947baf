"""Training on the device gives the losses and gradients that it has to give."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from checks import Check, Figure, NotThere, Place

if TYPE_CHECKING:
    import torch
    from models import TokenRow

    from sienn_ray.datasets.schema import RowKind

# Relative, of float32 numbers that were added up in another order.
_SAME = 1e-4
# Of a parameter's gradient in half precision.
_NORM_TOLERANCE = 0.05
# Of one beginning: their parts of its gradient are added up one by one, in half precision.
MANY_ROWS = 64
_NUM_ROWS, _MEAN_LENGTH, _NUM_SHARED = 6, 48, 20
_B_STD = 0.02


def same_as_cpu(kind: str, place: Place) -> Iterator[Figure]:
    """Compare the losses and all gradients of an adapter in float32 with those of the CPU."""
    from models import exact_products

    with exact_products():
        found, expected = computed(kind, place.device), computed(kind, "cpu")
    yield from compared("the CPU", found, expected)


def packed_rows(kind: str, place: Place) -> Iterator[Figure]:
    """Compare rows in one sequence, which begin alike, with the same rows one by one."""
    from models import exact_products

    with exact_products():
        found = computed(kind, place.device, num_shared=_NUM_SHARED)
        expected = computed(kind, place.device, num_shared=_NUM_SHARED, is_row_by_row=True)
    yield from compared("rows alone", found, expected)


def plain_reference(kind: str, place: Place) -> Iterator[Figure]:
    """Compare with transformers and PEFT by themselves: a forward pass a row, and cross entropy over all logits."""
    from models import exact_products, restored_modules, small_model
    from steps import Stepper, training_config

    rows = _rows(_NUM_SHARED)
    with exact_products():
        with restored_modules():
            stepper = Stepper(small_model(kind, place.device), training_config(rows, precision="float32"), _B_STD)
            found = stepper.gradients(rows)
        expected = _by_transformers(_fresh_peft(kind, place.device, stepper), rows)
    yield from compared("transformers and PEFT", found, expected)


def in_bfloat16(place: Place) -> Iterator[Figure]:
    """Compare with float32 on the CPU, by what bfloat16's 8 bits of precision allow."""
    import torch

    for kind in _kinds():
        expected = computed(kind, "cpu")
        for name, is_row_by_row in (("packed", False), ("row by row", True)):
            found = computed(kind, place.device, dtype=torch.bfloat16, is_row_by_row=is_row_by_row, place=place)
            yield from in_half(f"{kind}, {name}", found, expected)


def repeatable(place: Place) -> Iterator[Figure]:
    """Tell whether two runs are alike to the bit, which no card promises."""
    first, second = (_weights_after(place, num_steps=5) for _ in range(2))
    yield Figure("two runs of 5 steps: largest difference of a weight", _largest_difference(first, second))
    yield Figure("the same, relative to the weights", relative(first, second), at_most=0.02)


def resumed(place: Place) -> Iterator[Figure]:
    """Pause a run after half of its steps, go on from its checkpoint, and compare with a run straight through."""
    from lone_loop import Clock, Worker, fine_tune
    from models import device_of, exact_products, small_model
    from safetensors.torch import load_file
    from steps import training_config

    rows = _rows(0, num_rows=16)
    config = training_config(rows, batch_size=4, num_epochs=2, precision="float32")

    def run(name: str, start: Any = None, pause_after: int | None = None) -> Any:
        folder = place.scratch / "resume" / name
        folder.parent.mkdir(exist_ok=True)
        worker = Worker(device_of(place), folder, start)
        load = functools.partial(small_model, "grouped queries", place.device)
        fine_tune(load, config, rows, worker, pad_token_id=0, clock=Clock(pause_after=pause_after))
        return folder

    with exact_products():
        whole = run("whole")
        again = run("again", start=run("half", pause_after=3))
    found, expected = (load_file(folder / "adapter_model.safetensors") for folder in (again, whole))
    yield Figure("weights of a run that was paused, relative difference", relative(found, expected), at_most=1e-3)


def four_bits(place: Place) -> Iterator[Figure]:
    """Train over a base model in NF4 for some steps: its loss begins near that of bfloat16, and falls."""
    import importlib.util

    if importlib.util.find_spec("bitsandbytes") is None:
        raise NotThere("bitsandbytes isn't installed")
    import torch
    from models import device_of, save_to_hub_cache, small_model
    from steps import Stepper, training_config

    from sienn_ray.base_model import load_causal_lm

    rows = _rows(0)
    folder = save_to_hub_cache(small_model("grouped queries", "cpu"), "benchmarks/small-nf4", place)
    losses = {}
    for quantization in (None, "nf4"):
        base = load_causal_lm(folder, device_of(place), torch.bfloat16, quantization)
        config = training_config(rows, precision="bfloat16", quantization=quantization, learning_rate=1e-3)
        stepper = Stepper(base, config)
        losses[quantization] = [stepper.step(rows) for _ in range(6)]
    yield Figure("first loss, relative to bfloat16", abs(losses["nf4"][0] / losses[None][0] - 1), at_most=0.15)
    yield Figure("last loss over the first", losses["nf4"][-1] / losses["nf4"][0], at_most=0.999)


def with_dora(place: Place) -> Iterator[Figure]:
    """Compare gradients of DoRA, which has layers of its own, with the CPU's."""
    from models import exact_products
    from steps import LORA

    lora = LORA.model_copy(update={"use_dora": True})
    with exact_products():
        found, expected = (computed("grouped queries", device, lora=lora) for device in (place.device, "cpu"))
    yield from compared("the CPU", found, expected)


def out_of_memory(place: Place) -> Iterator[Figure]:
    """Take a micro batch that is far too large: it is halved, the step goes on, and its loss is the same."""
    place.needs_card("the memory of a CPU has no limit that a program may set")
    import torch
    from models import random_llama, random_rows
    from steps import Stepper, token_limit, training_config

    base = random_llama("135M", place)
    rows = random_rows(64, 1024, base.config.vocab_size)
    small = {"batch_size": 4, "gradient_accumulation_steps": len(rows) // 4} | token_limit(4096)
    expected, gradients = Stepper(base, training_config(rows, precision="bfloat16", **small), _B_STD).gradients(rows)
    del base
    _free()
    before = torch.cuda.memory_allocated()
    total = torch.cuda.get_device_properties(0).total_memory
    large = training_config(rows, precision="bfloat16", **token_limit(2 * sum(len(row.input_ids) for row in rows)))
    stepper = Stepper(random_llama("135M", place), large, _B_STD)
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + (12 << 30)) / total)
    try:
        loss, found = stepper.gradients(rows)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    is_smaller = stepper.learner.collator.lowered_to is not None
    yield Figure("micro batch that was made smaller", is_smaller, at_least=1)
    yield Figure("loss, relative to that of small micro batches", abs(loss / expected - 1), at_most=2e-3)
    yield Figure("gradients, relative to those of small micro batches", relative(found, gradients), at_most=0.05)
    del stepper
    _free()
    left = torch.cuda.memory_allocated() - before
    yield Figure("memory that isn't given back", left / 2**20, "MiB", at_most=64)


def _free() -> None:
    import gc

    import torch

    gc.collect()
    torch.cuda.empty_cache()


def computed(
    kind: str,
    device: str,
    *,
    dtype: torch.dtype | None = None,
    num_shared: int = _NUM_SHARED,
    num_rows: int = _NUM_ROWS,
    is_row_by_row: bool = False,
    is_training: bool = False,
    row_kind: RowKind | None = None,
    loss_scale: float | None = None,
    scales: list[float] | None = None,
    place: Place | None = None,
    **fields: Any,
) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of the product over one of the small models.

    Args:
        kind: Of the model.
        device: Where.
        dtype: Of the base model; float32 by default.
        num_shared: First tokens that all rows have in common.
        num_rows: Rows.
        is_row_by_row: Whether each row has a forward pass of its own.
        is_training: Whether with dropout, where the configuration has any; from the same seed each time.
        row_kind: Of the rows; conversations by default.
        loss_scale: To begin with, in float16.
        scales: Takes the scale that there is in the end.
        place: Takes facts.
        fields: Hyperparameters.
    """
    import torch
    from models import restored_modules, small_model
    from steps import Stepper, row_by_row, training_config

    dtype = dtype or torch.float32
    rows = _rows(num_shared, num_rows)
    if is_row_by_row:
        fields |= row_by_row(rows)
    config = training_config(rows, precision=str(dtype).removeprefix("torch."), **fields)
    with restored_modules():
        stepper = Stepper(small_model(kind, device, dtype), config, _B_STD, row_kind=row_kind)
        scale = stepper.learner.gradients.loss_scale
        scale.value = loss_scale or scale.value
        if place is not None:
            place.facts[f"attention of {kind} in {config.precision}"] = stepper.learner.facts.attention
        torch.manual_seed(0)
        stepper.learner.adapter.train(is_training)
        found = stepper.gradients(rows)
    if scales is not None:
        scales.append(scale.value)
    return found


def in_half(
    name: str, found: tuple[float, dict[str, torch.Tensor]], expected: tuple[float, dict[str, torch.Tensor]]
) -> Iterator[Figure]:
    """Compare half precision with float32, by what some 8 bits of precision allow."""
    yield Figure(f"{name}: loss, relative difference", abs(found[0] / expected[0] - 1), at_most=0.01)
    yield Figure(f"{name}: cosine of the gradients", _cosine(found[1], expected[1]), at_least=0.99)
    # A factor that all of a parameter's gradient has doesn't show in a cosine.
    ratios = [float(found[1][key].norm() / value.norm()) for key, value in expected[1].items()]
    yield Figure(f"{name}: least norm of a gradient, over that in float32", min(ratios), at_least=1 - _NORM_TOLERANCE)
    yield Figure(f"{name}: largest norm of a gradient, over that in float32", max(ratios), at_most=1 + _NORM_TOLERANCE)


def _rows(num_shared: int, num_rows: int = _NUM_ROWS) -> list[TokenRow]:
    from models import random_rows

    return random_rows(num_rows, _MEAN_LENGTH, 300, num_shared=num_shared)


def _fresh_peft(kind: str, device: str, stepper: Any) -> Any:
    """PEFT's own layers with the weights of the product's adapter."""
    from models import small_model
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    theirs = get_peft_model(
        small_model(kind, device),
        LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    weights = get_peft_model_state_dict(stepper.learner.adapter, save_embedding_layers=False)
    set_peft_model_state_dict(theirs, {name: value.detach().clone() for name, value in weights.items()})
    return theirs


def _by_transformers(model: Any, rows: list[TokenRow]) -> tuple[float, dict[str, torch.Tensor]]:
    import torch

    device = next(model.parameters()).device
    num_targets = sum(row.num_completion_tokens for row in rows)
    total = 0.0
    for row in rows:
        logits = model(input_ids=torch.tensor([row.input_ids], device=device), use_cache=False).logits[0, :-1]
        labels = torch.tensor(row.labels[1:], device=device)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels, ignore_index=-100, reduction="sum")
        (loss / num_targets).backward()
        total += float(loss.detach())
    grads = {name: p.grad.float().cpu() for name, p in model.named_parameters() if p.grad is not None}
    return total / num_targets, grads


def compared(
    with_what: str, found: tuple[float, dict[str, torch.Tensor]], expected: tuple[float, dict[str, torch.Tensor]]
) -> Iterator[Figure]:
    """Compare losses and gradients in float32."""
    yield Figure(f"loss against {with_what}, relative difference", abs(found[0] / expected[0] - 1), at_most=_SAME)
    missing = len(found[1].keys() ^ expected[1].keys())
    yield Figure(f"gradients that only one side has, against {with_what}", missing, at_most=0)
    worst = max(relative({name: found[1][name]}, {name: value}) for name, value in expected[1].items())
    yield Figure(f"worst gradient against {with_what}, relative difference", worst, at_most=10 * _SAME)


def relative(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Norm of the difference over the norm."""
    difference = sum(float((found[name].double() - value.double()).square().sum()) for name, value in expected.items())
    norm = sum(float(value.double().square().sum()) for value in expected.values())
    return (difference / norm) ** 0.5


def _largest_difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    return max(float((found[name] - value).abs().max()) for name, value in expected.items())


def _cosine(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    import torch

    first, second = (torch.cat([each[name].flatten() for name in expected]) for each in (found, expected))
    return float(torch.nn.functional.cosine_similarity(first, second, dim=0))


def _weights_after(place: Place, num_steps: int) -> dict[str, torch.Tensor]:
    from models import random_llama, random_rows
    from steps import Stepper, training_config

    base = random_llama("135M", place)
    rows = random_rows(8, 64 if place.is_rehearsal else 512, base.config.vocab_size)
    stepper = Stepper(base, training_config(rows, precision="bfloat16"))
    for _ in range(num_steps):
        stepper.step(rows)
    named = stepper.learner.adapter.named_parameters()
    return {name: parameter.detach().cpu().clone() for name, parameter in named if parameter.requires_grad}


def _kinds() -> tuple[str, ...]:
    from models import SMALL

    return tuple(SMALL)


def _each(run: Callable[[str, Place], Iterator[Figure]]) -> Callable[[Place], Iterator[Figure]]:
    """Run a check for each of the small models."""

    def all_kinds(place: Place) -> Iterator[Figure]:
        for kind in _kinds():
            for figure in run(kind, place):
                yield Figure(f"{kind}: {figure.name}", figure.value, figure.unit, figure.at_least, figure.at_most)

    return all_kinds


CHECKS = (
    Check("training/device and CPU", _each(same_as_cpu), 40.0),
    Check("training/packed rows", _each(packed_rows), 30.0),
    Check("training/transformers and PEFT", _each(plain_reference), 30.0),
    Check("training/bfloat16", in_bfloat16, 30.0),
    Check("training/DoRA", with_dora, 20.0),
    Check("training/NF4", four_bits, 30.0),
    Check("training/resume", resumed, 30.0),
    Check("training/repeatable", repeatable, 30.0),
    Check("training/out of memory", out_of_memory, 40.0),
)
