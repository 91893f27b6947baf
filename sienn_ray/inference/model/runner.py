"""One forward pass of a base model over the tokens of many requests, each with an adapter of its own or none."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sienn_ray.errors import EngineError
from sienn_ray.inference.model import paged_attention
from sienn_ray.inference.model.batched_lora import LoraStack
from sienn_ray.inference.model.decoder_layers import replace_layers
from sienn_ray.inference.model.kv_blocks import runs
from sienn_ray.inference.model.linear_choice import LinearChoices
from sienn_ray.inference.model.lora_weights import LoraWeights
from sienn_ray.inference.model.packed_linear import packed
from sienn_ray.inference.model.paged_attention import KvCache, PagedStep, RowSpan

logger = logging.getLogger(__name__)

# Without a KV cache, blocks take no memory and only bound the tokens of all requests together.
BLOCKS_WITHOUT_CACHE = 4096
_PROBE_TOKENS = 12
# Differences of logits over the largest one, by the model's dtype.
_TOLERANCES = {torch.float32: 2e-3, torch.bfloat16: 0.1, torch.float16: 0.05}


@dataclass(frozen=True)
class StepRow:
    """The part of one request in a step: a token to decode, or a chunk of a prompt to prefill.

    Args:
        tokens: The request's tokens up to the last one to compute.
        num_before: Number of those that are computed already.
        blocks: The request's KV blocks, with room for these tokens.
        adapter: Name of the adapter, or None.
        wants_logits: Whether the logits after the last of these tokens are wanted; a chunk before the last has none.
    """

    tokens: Sequence[int]
    num_before: int
    blocks: Sequence[int]
    adapter: str | None
    wants_logits: bool

    @property
    def num_new(self) -> int:
        """Number of tokens to compute."""
        return len(self.tokens) - self.num_before


class PackingError(Exception):
    """The model reads its weights elsewhere than in its linear layers; they are gone once they are packed."""


class ModelRunner:
    """A base model with batched adapters, and with paged attention where its own can be replaced.

    Where they can't, all tokens of a request are computed at every step: slow, and right for any architecture.

    Args:
        model: The causal LM, which is changed: its linear layers and its attention are replaced.
        cache_bytes: Upper limit of the KV cache.
        block_tokens: Tokens in a KV block.
        choices: The fastest layouts of linear layers; None leaves them as they are.

    Raises:
        EngineError: The cache has no room for a single block.
        PackingError: The model gives other logits with packed weights; load it anew, without choices.
    """

    def __init__(self, model: Any, cache_bytes: int, block_tokens: int, choices: LinearChoices | None = None) -> None:
        self._model = model.eval()
        self._device: torch.device = model.device
        self._block_tokens = block_tokens
        expected = self._plain_logits()
        self.lora = LoraStack(model, choices)
        if choices is not None:
            self._pack_head(choices)
            if not self._is_near(self._plain_logits(), expected):
                raise PackingError
        self._cache = KvCache(-(-_PROBE_TOKENS // block_tokens) * block_tokens)
        self.has_cache = self._can_page(expected)
        self.num_blocks = self._num_blocks(cache_bytes)
        self._cache = KvCache(self.num_blocks * block_tokens)

    def _pack_head(self, choices: LinearChoices) -> None:
        head = self._model.get_output_embeddings()
        if head is not None and (packed_head := packed(head, choices)) is not None:
            self._model.set_output_embeddings(packed_head)

    def _is_near(self, found: torch.Tensor, expected: torch.Tensor) -> bool:
        difference = float((found - expected).abs().max() / expected.abs().max())
        return difference <= _TOLERANCES.get(self.dtype, 0.1)

    def _num_blocks(self, cache_bytes: int) -> int:
        if not self.has_cache:
            return BLOCKS_WITHOUT_CACHE
        token_bytes = self._cache.size_bytes // self._cache.num_slots
        num_blocks = cache_bytes // (token_bytes * self._block_tokens)
        if num_blocks == 0:
            raise EngineError(
                f"a cache of {cache_bytes} bytes has no room for {self._block_tokens} tokens of {token_bytes} bytes; "
                "raise SIENN_ENGINE_KV_CACHE_BYTES"
            )
        return num_blocks

    @property
    def dtype(self) -> torch.dtype:
        """The model's dtype."""
        dtype: torch.dtype = self._model.dtype
        return dtype

    @property
    def cache_bytes(self) -> int:
        """Bytes of keys and values."""
        return self._cache.size_bytes

    @torch.inference_mode()
    def step(self, rows: Sequence[StepRow], adapters: Mapping[str, LoraWeights]) -> torch.Tensor:
        """Compute the tokens of all rows in one forward pass.

        Args:
            rows: The requests' parts.
            adapters: Weights of the adapters that they name.

        Returns:
            (rows that want logits, vocabulary) float32.
        """
        if not self.has_cache:
            return self._recompute(rows, adapters)
        spans: list[RowSpan] = []
        slots: list[int] = []
        positions: list[int] = []
        ids: list[int] = []
        last: dict[int, int] = {}
        for number in self.lora.use([(row.adapter, row.num_new) for row in rows], adapters):
            row = rows[number]
            num = row.num_new
            own = self._runs_between(row.blocks, row.num_before, num)
            context = tuple(runs(row.blocks, self._block_tokens, row.num_before))
            spans.append(RowSpan(len(ids), num, context, own))
            ids += row.tokens[row.num_before :]
            positions += range(row.num_before, row.num_before + num)
            for start, length in own:
                slots += range(start, start + length)
            last[number] = len(ids) - 1
        paged = PagedStep(self._cache, self._tensor(slots), spans)
        logits: torch.Tensor = self._model(
            input_ids=self._tensor(ids).unsqueeze(0),
            position_ids=self._tensor(positions).unsqueeze(0),
            use_cache=False,
            paged=paged,
            logits_to_keep=self._tensor([last[number] for number, row in enumerate(rows) if row.wants_logits]),
        ).logits[0]
        return logits.float()

    def _recompute(self, rows: Sequence[StepRow], adapters: Mapping[str, LoraWeights]) -> torch.Tensor:
        found = []
        for row in rows:
            if row.wants_logits:
                self.lora.use([(row.adapter, len(row.tokens))], adapters)
                found.append(self._model(input_ids=self._tensor(row.tokens)[None], use_cache=False).logits[0, -1])
        return torch.stack(found).float() if found else torch.empty(0)

    def _runs_between(self, blocks: Sequence[int], num_before: int, num: int) -> tuple[tuple[int, int], ...]:
        """Return the slots of `num` tokens that follow `num_before` others."""
        skipped = num_before // self._block_tokens
        inside = num_before - skipped * self._block_tokens
        found = runs(blocks[skipped:], self._block_tokens, inside + num)
        start, length = found[0]
        return ((start + inside, length - inside), *found[1:])

    def _tensor(self, numbers: Sequence[int]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=self._device)

    @torch.inference_mode()
    def _plain_logits(self) -> torch.Tensor:
        ids = torch.tensor([self._probe()], device=self._device)
        logits: torch.Tensor = self._model(input_ids=ids, use_cache=False).logits[0]
        return logits.float()

    def _probe(self) -> list[int]:
        size = min(self._model.get_input_embeddings().num_embeddings, 1000)
        return [(7 * number + 3) % size for number in range(_PROBE_TOKENS)]

    def _can_page(self, expected: torch.Tensor) -> bool:
        """Switch to paged attention, unless two chunks of a prefill and a decoding step then give other logits.

        That finds models whose layers mix tokens in other ways (state space models, convolutions), or whose attention
        isn't transformers' exchangeable one.
        """
        before = self._model.config._attn_implementation
        paged_attention.register()
        restore = replace_layers(self._model)
        if restore is not None:
            if self._pages(expected, "its layers in few calls"):
                return True
            restore()
        if self._pages(expected, "paged attention"):
            return True
        self.has_cache = False
        self._model.set_attn_implementation(before)
        return False

    def _pages(self, expected: torch.Tensor, means: str) -> bool:
        blocks, ids = list(range(self._cache.num_slots // self._block_tokens)), self._probe()
        pieces = [(0, 5), (5, _PROBE_TOKENS - 1), (_PROBE_TOKENS - 1, _PROBE_TOKENS)]
        self.has_cache = True
        why = "they don't give what the base model gives"
        try:
            self._model.set_attn_implementation(paged_attention.NAME)
            found = torch.cat([self.step([StepRow(ids[:end], start, blocks, None, True)], {}) for start, end in pieces])
            expected = expected[[end - 1 for _, end in pieces]]
            if self._cache.size_bytes and self._is_near(found, expected):
                return True
        except Exception as error:  # any that a foreign architecture raises
            why = f"{type(error).__name__}: {error}"
        logger.warning("%s can't have %s and will be slower: %s", type(self._model).__name__, means, why)
        return False
