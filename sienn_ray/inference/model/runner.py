"""One forward pass of a base model over the tokens of many requests, each with an adapter of its own or none."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from sienn_ray.errors import EngineError
from sienn_ray.inference.model import paged_attention
from sienn_ray.inference.model.decode_graphs import Capture, DecodeGraphs
from sienn_ray.inference.model.decoder_layers import replace_layers
from sienn_ray.inference.model.device_memory import MOST_GATHERED_BYTES
from sienn_ray.inference.model.linear_choice import LinearChoices
from sienn_ray.inference.model.lora_stack import LoraStack
from sienn_ray.inference.model.lora_weights import LoraWeights
from sienn_ray.inference.model.packed_linear import packed
from sienn_ray.inference.model.paged_ways import GatheredWays, InPlaceWays, PagedWays
from sienn_ray.inference.model.step_forward import StepForward
from sienn_ray.inference.model.step_halves import halves
from sienn_ray.inference.model.step_rows import StepRow
from sienn_ray.inference.transfers import StepNumbers
from sienn_ray.memory_shortage import is_out_of_memory

__all__ = ["BLOCKS_WITHOUT_CACHE", "ModelRunner", "PackingError", "StepRow"]

logger = logging.getLogger(__name__)

# Without a KV cache, blocks take no memory and only bound the tokens of all requests together.
BLOCKS_WITHOUT_CACHE = 4096
_PROBE_TOKENS = 12
# Differences of logits over the largest one, by the model's dtype.
_TOLERANCES = {torch.float32: 2e-3, torch.bfloat16: 0.1, torch.float16: 0.05}


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
        for_gpu: Whether to compute in few launches and few copies, as suits a GPU; None is where the model isn't on a
            CPU.
        capture: Records decoding steps in the ways of a GPU; None records none.
        adapter_bytes: Bytes of the adapters of one step; None is no limit.
        gathered_bytes: Bytes of keys and values that one attention call gathers in the ways of a GPU.

    Raises:
        EngineError: The cache has no room for a single block, or the GPU none for the cache.
        PackingError: The model gives other logits with packed weights; load it anew, without choices.
    """

    def __init__(
        self,
        model: Any,
        cache_bytes: int,
        block_tokens: int,
        choices: LinearChoices | None = None,
        *,
        for_gpu: bool | None = None,
        capture: Capture | None = None,
        adapter_bytes: int | None = None,
        gathered_bytes: int = MOST_GATHERED_BYTES,
    ) -> None:
        self._model = model.eval()
        _warn_of_no_padding(model)
        self._device: torch.device = model.device
        self._block_tokens = block_tokens
        self._gathered_bytes = gathered_bytes
        self._is_for_gpu = self._device.type != "cpu" if for_gpu is None else for_gpu
        expected = self._plain_logits()
        self.lora = LoraStack(model, choices, is_flat=self._is_for_gpu, max_bytes=adapter_bytes)
        if choices is not None:
            self._pack_head(choices)
            if not self._is_near(self._plain_logits(), expected):
                raise PackingError
        self._use_blocks(-(-_PROBE_TOKENS // block_tokens))
        self.has_cache = self._can_page(expected)
        self.num_blocks = self._num_blocks(cache_bytes)
        #: Captured decoding steps, if any are.
        self.graphs = None if capture is None else DecodeGraphs(capture, self._device)
        probed = self._cache
        self._use_blocks(self.num_blocks, self.graphs)
        if self.has_cache:
            self._allocate_as(probed, cache_bytes)

    def _use_blocks(self, num_blocks: int, graphs: DecodeGraphs | None = None) -> None:
        """Begin with an empty cache of so many blocks."""
        self._cache: PagedWays = (
            GatheredWays(num_blocks, self._block_tokens, self._gathered_bytes)
            if self._is_for_gpu
            else InPlaceWays(num_blocks, self._block_tokens)
        )
        self._forward = StepForward(self._model, self.lora, self._block_tokens, self._cache, graphs)

    def _allocate_as(self, probed: PagedWays, cache_bytes: int) -> None:
        """Allocate a GPU's cache with the layers that the probe wrote; a CPU's takes memory where it is written to."""
        if not isinstance(self._cache, GatheredWays) or not isinstance(probed, GatheredWays):
            return
        try:
            self._cache.allocate_as(probed)
        except torch.OutOfMemoryError as error:
            raise EngineError(
                f"the GPU has no memory for a cache of {cache_bytes} bytes; lower SIENN_ENGINE_KV_CACHE_BYTES, or give "
                "the engine more of a GPU (SIENN_ENGINE_NUM_GPUS)"
            ) from error

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
        token_bytes = self._cache.token_bytes
        num_blocks = cache_bytes // (token_bytes * self._block_tokens) - self._cache.num_spare_blocks
        if num_blocks <= 0:
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
        """Compute the tokens of all rows in one forward pass, or in several where memory is too short for one.

        Args:
            rows: The requests' parts.
            adapters: Weights of the adapters that they name.

        Returns:
            (rows that want logits, vocabulary) float32.

        Raises:
            AdapterMemoryError: There is no room for all the adapters.
        """
        try:
            return self._computed(rows, adapters)
        except Exception as error:
            parts = halves(rows)
            if parts is None or not is_out_of_memory(error):
                raise
            logger.warning("memory is too short for a step of %d requests, which is divided: %s", len(rows), error)
        # The error, whose traceback held the step's tensors, is gone here.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        # A captured step's logits are overwritten by the next one's.
        found = [self.step(part, adapters).clone() for part in parts]
        return torch.cat([logits for logits in found if logits.numel()] or found[:1])

    def _computed(self, rows: Sequence[StepRow], adapters: Mapping[str, LoraWeights]) -> torch.Tensor:
        if not self.has_cache:
            return self._recompute(rows, adapters)
        return self._forward(rows, adapters)

    def _recompute(self, rows: Sequence[StepRow], adapters: Mapping[str, LoraWeights]) -> torch.Tensor:
        found = []
        for row in rows:
            if row.wants_logits:
                numbers = StepNumbers(self._device)
                self.lora.use([(row.adapter, len(row.tokens))], adapters, numbers)
                at = numbers.add(row.tokens)
                numbers.send()
                self.lora.begin()
                found.append(self._model(input_ids=numbers[at].unsqueeze(0), use_cache=False).logits[0, -1])
        return torch.stack(found).float() if found else torch.empty(0)

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
        blocks, ids = list(range(self._cache.num_blocks)), self._probe()
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


def _warn_of_no_padding(model: torch.nn.Module) -> None:
    """Have models not look for padding, of which steps have none: GPT-2 reads ids back from the device for it."""
    for module in model.modules():
        if hasattr(module, "warn_if_padding_and_no_attention_mask"):
            vars(module)["warn_if_padding_and_no_attention_mask"] = lambda *_: None
