"""TRL beside the product: the same base model, adapter and tokens, in the same process, on the same card."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from checks import Check, Figure, NotThere, Place

if TYPE_CHECKING:
    from models import TokenRow

# Of the product's tokens a second over the fastest peer's.
_GOALS = {"nf4": 0.85, "8B": 0.9, "1B": 1.5, "135M": 1.5}
_NEEDED = ("trl", "datasets", "accelerate")
_WARM_UP, _TIMED = 2, 5


@dataclass(frozen=True)
class Way:
    """A way to train with TRL.

    Args:
        name: Of the way.
        is_packed: Whether rows are packed, each masked from its neighbours; else all rows have one length, so that
            nothing is padded and no mask is needed, which lets attention take its fastest kernel.
        uses_liger: Whether with Liger's kernels and fused loss.
    """

    name: str
    is_packed: bool
    uses_liger: bool


_WAYS = (
    Way("TRL, equal rows", is_packed=False, uses_liger=False),
    Way("TRL, equal rows, Liger", is_packed=False, uses_liger=True),
    Way("TRL, packed, Liger", is_packed=True, uses_liger=True),
)


def beside_trl(shape: str, load: str, place: Place, quantization: str | None = None) -> Iterator[Figure | Exception]:
    """Train with TRL in each way, and compare the product with the fastest."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise NotThere(f"{', '.join(missing)} isn't installed")
    from models import restored_modules
    from training_speed import ours

    mine = ours(shape, load, place, quantization)
    yield Figure("the product", mine.tokens_per_s, "tokens/s")
    fastest = 0.0
    for way in _WAYS:
        if way.uses_liger and importlib.util.find_spec("liger_kernel") is None:
            yield NotThere(f"{way.name}: liger_kernel isn't installed")
            continue
        try:
            with restored_modules():
                tokens_per_s, peak_bytes = _trained(way, shape, load, place, quantization)
        except Exception as error:
            is_too_large = "out of memory" in str(error)
            yield NotThere(f"{way.name}: out of memory") if is_too_large else _named(error, way)
            continue
        finally:
            _free()
        fastest = max(fastest, tokens_per_s)
        yield Figure(way.name, tokens_per_s, "tokens/s")
        yield Figure(f"{way.name}: peak memory", peak_bytes / 2**30, "GiB")
    if fastest:
        ratio = mine.tokens_per_s / fastest
        yield Figure("the product over the fastest", ratio, at_least=_GOALS[quantization or shape], is_goal=True)


def _named(error: Exception, way: Way) -> Exception:
    """The error, with the way that it is of."""
    named = RuntimeError(f"{way.name}: {type(error).__name__}: {error}")
    named.__traceback__ = error.__traceback__
    return named


def _trained(way: Way, shape: str, load_name: str, place: Place, quantization: str | None = None) -> tuple[float, int]:
    """Tokens a second, and the most memory that tensors took."""
    import torch
    from models import in_four_bits, llama_config, load_tokenizer, random_llama, save_tokenizer
    from peft import get_peft_model
    from run_peer import lora_config, trl_trainer
    from training_runs import load_of

    from sienn_ray.training.hardware import peak_memory_bytes

    load = load_of(load_name, place)
    num_steps = _WARM_UP + (2 if place.is_rehearsal else _TIMED)
    folder = place.scratch / f"tokenizer-{shape}"
    if not folder.is_dir():
        save_tokenizer(folder, llama_config(shape, place).vocab_size)
    rows = _rows(way, load, num_steps, llama_config(shape, place).vocab_size)
    scratch = str(place.scratch / "trl")
    meter = _meter(place.device)
    uses_liger = way.uses_liger and place.device == "cuda"  # its kernels are Triton's
    options = argparse.Namespace(
        peer="trl-packed-bf16" if way.is_packed else "trl-bf16",
        batch_size=load.num_rows,
        max_length=4 * load.mean_length,
        learning_rate=2e-4,
        epochs=1,
        seed=0,
        set=["max_steps=" + str(num_steps), "use_liger_kernel=" + str(uses_liger).lower(), *_unpadded(way)],
    )
    if place.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    base = random_llama(shape, place)
    model = get_peft_model(base if quantization is None else in_four_bits(base), lora_config())
    trl_trainer(options, load_tokenizer(folder), rows, meter, scratch, model).train()
    return meter.tokens_per_s(_WARM_UP), peak_memory_bytes(torch.device(place.device))


def _unpadded(way: Way) -> list[str]:
    """Rows of one length are a batch as they are; flattening them into one row would need a mask."""
    return [] if way.is_packed else ["padding_free=false"]


def _rows(way: Way, load: Any, num_steps: int, vocab_size: int) -> list[TokenRow]:
    """The product's own rows to be packed, more of them than are taken, or rows of their mean length."""
    from models import TokenRow, random_rows

    if way.is_packed:
        return random_rows(2 * num_steps * load.num_rows, load.mean_length, vocab_size)
    rows = random_rows(num_steps * load.num_rows, 2 * load.mean_length, vocab_size)
    length, half = load.mean_length, load.mean_length // 2
    return [TokenRow(row.input_ids[:length], [-100] * half + row.input_ids[half:length]) for row in rows]


def _meter(device: str) -> Any:
    """A meter that reads no tensor, for which the host would have to wait."""
    from meter import Meter
    from timing import synchronize

    class ShapeMeter(Meter):
        def count(self, batch: dict[str, Any]) -> None:
            self.num_tokens += batch["input_ids"].numel()

        def mark(self) -> None:
            synchronize(device)
            super().mark()

        def tokens_per_s(self, num_warm_up: int) -> float:
            start, end = self._marks[num_warm_up], self._marks[-1]
            return (end.num_tokens - start.num_tokens) / (end.wall_s - start.wall_s)

    return ShapeMeter()


def _free() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _beside(shape: str, load: str, quantization: str | None = None) -> Callable[[Place], Iterator[Figure | Exception]]:
    return lambda place: beside_trl(shape, load, place, quantization)


CHECKS = (
    Check("training peers/8B 4k tokens", _beside("8B", "4k"), 90.0),
    Check("training peers/8B 4k tokens, NF4", _beside("8B", "4k", "nf4"), 90.0),
    Check("training peers/1B 4k tokens", _beside("1B", "4k"), 60.0),
    # Liger has altered transformers' modules by then.
    Check("training peers/135M 4k tokens", _beside("135M", "4k"), 60.0, ends_process=True),
)
