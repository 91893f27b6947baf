"""Scores of the tokens in a batch by a base model with an adapter, as cheaply as it can be asked."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from sienn_ray.training.loss import packed_attention, varlen_attention
from sienn_ray.training.loss.batches import Batch
from sienn_ray.training.loss.packing import MIN_SHARED_TOKENS, TokenRow, as_pieces, pack, pad
from sienn_ray.training.loss.token_log_probs import OutputHead, token_log_probs

logger = logging.getLogger(__name__)

# Two rows that begin alike, for the check; short, since it runs before every training.
_PROBE_TOKENS = 12
# Differences over the largest value, of hidden states and logits that should be the same.
_TOLERANCES = {torch.float32: 2e-3, torch.bfloat16: 0.1, torch.float16: 0.05}


class Scorer:
    """Log-probabilities of a batch's targets.

    Args:
        model: The causal LM; an adapter on it takes part.
        pad_token_id: Fills rows up where they can't be packed.
        device: Where it computes.
        is_packed: Whether rows are packed; see `can_pack`.
        has_plain_head: Whether logits are what `OutputHead` makes of hidden states; else whole logits are taken.
        autocast: Type of 2 bytes that products of float32 tensors are to be done in, if any.
        head_chunk_tokens: Tokens whose logits are there at once; None is what suits the device.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        pad_token_id: int,
        device: torch.device,
        *,
        is_packed: bool,
        has_plain_head: bool,
        autocast: torch.dtype | None = None,
        head_chunk_tokens: int | None = None,
    ) -> None:
        self._model = model
        self._pad_token_id = pad_token_id
        self._device = device
        self._head = OutputHead.of(model, head_chunk_tokens)
        self._has_plain_head = has_plain_head
        self._autocast_type = autocast
        self.is_packed = is_packed

    def collate(self, rows: Sequence[TokenRow]) -> Batch:
        """Make a batch on the CPU, in any thread: packed where the base model can take that; see `pack`."""
        return _packed(self._model, rows) if self.is_packed else pad(rows, self._pad_token_id)

    def batch(self, rows: Sequence[TokenRow]) -> Batch:
        """Make a batch on the device."""
        return self.collate(rows).to(self._device)

    def log_probs(self, batch: Batch) -> torch.Tensor:
        """(targets,) float32: the log-probability of each target, in nats."""
        with self._autocast():
            if not self._has_plain_head:
                logits = self._model(**batch.inputs, use_cache=False).logits.flatten(0, 1)[batch.source_positions]
                return -torch.nn.functional.cross_entropy(logits.float(), batch.targets, reduction="none")
            states = body(self._model)(**batch.inputs, use_cache=False).last_hidden_state
            # Before the head, which then sees completions only.
            wanted = states.flatten(0, 1)[batch.source_positions]
            return token_log_probs(self._head, wanted, batch.targets)

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self._device.type, self._autocast_type) if self._autocast_type else nullcontext()


def body(model: PreTrainedModel) -> Any:
    """A causal LM without its output head."""
    return model.get_decoder()


@torch.no_grad()
def has_plain_head(model: PreTrainedModel) -> bool:
    """Return whether the model's logits are what `OutputHead` makes of its hidden states."""
    ids = _probe_rows(model)[0][0]
    inputs = {"input_ids": torch.tensor([ids], device=model.device), "use_cache": False}
    with _evaluating(model):
        logits = model(**inputs).logits[0]
        return _works(
            lambda: _agree(
                OutputHead.of(model).logits(body(model)(**inputs).last_hidden_state[0]), logits, model.dtype
            ),
            "hidden states and output head",
        )


@torch.no_grad()
def can_pack(model: PreTrainedModel, kernel: varlen_attention.Kernel | None = None) -> bool:
    """Switch the model's attention to packed rows, unless packed rows then differ from rows by themselves.

    Models whose layers mix tokens in other ways (state space models, convolutions), or whose attention isn't
    transformers' exchangeable one, keep theirs.

    Args:
        model: The base model on its device.
        kernel: Of variable-length attention; None is the device's own, if it has one.
    """
    before = model.config._attn_implementation
    rows = _probe_rows(model)
    kernel = kernel or varlen_attention.kernel_for(model)
    names = [packed_attention.NAME]
    packed_attention.register()
    if kernel is not None:
        varlen_attention.register(kernel)
        names.insert(0, varlen_attention.NAME)
    with _evaluating(model):
        alone = torch.cat([_hidden(model, pad([row], 0).to(model.device)) for row in rows])

        def agrees(name: str) -> bool:
            model.set_attn_implementation(name)
            together = _hidden(model, _packed(model, rows, min_shared=2).to(model.device))
            return _agree(together, alone, model.dtype)

        for name in names:
            if _works(partial(agrees, name), f"packed rows by {name}"):
                return True
    model.set_attn_implementation(before)
    return False


def _packed(model: PreTrainedModel, rows: Sequence[TokenRow], min_shared: int = MIN_SHARED_TOKENS) -> Batch:
    """Pack rows with the arguments that the model's attention tells them by."""
    is_varlen = model.config._attn_implementation == varlen_attention.NAME
    return pack(rows, min_shared, varlen_attention.inputs_of if is_varlen else as_pieces)


def _works(check: Callable[[], bool], what: str) -> bool:
    try:
        fits = check()
    except Exception as error:  # whatever a foreign architecture makes of it
        logger.info("%s can't be used: %s: %s", what, type(error).__name__, error)
        return False
    if not fits:
        logger.info("%s can't be used: they don't give what the base model gives", what)
    return fits


def _probe_rows(model: PreTrainedModel) -> list[TokenRow]:
    """Rows that begin alike and go on apart, each of whose tokens is a target."""
    size = min(model.get_input_embeddings().num_embeddings, 1000)
    first = [(7 * i + 3) % size for i in range(_PROBE_TOKENS)]
    second = first[:4] + [(11 * i + 5) % size for i in range(_PROBE_TOKENS - 5)]
    return [(first, first), (second, second)]


def _hidden(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    states: torch.Tensor = body(model)(**batch.inputs, use_cache=False).last_hidden_state
    return states.flatten(0, 1)[batch.source_positions]


def _agree(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> bool:
    scale = float(expected.float().abs().max()) or 1.0
    difference = float((found.float() - expected.float()).abs().max())
    return difference <= _TOLERANCES.get(dtype, 0.1) * scale


@contextlib.contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
