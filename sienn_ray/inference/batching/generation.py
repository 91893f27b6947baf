"""One request in the batching engine, from the queue to its last token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sienn_ray.inference.engine import GenerationDelta, GenerationRequest
from sienn_ray.inference.model.kv_blocks import BlockTable
from sienn_ray.inference.requests.answer import Answer
from sienn_ray.inference.sampling.sampler import RowSampler


@dataclass(frozen=True)
class AdapterUse:
    """The weights that a request is computed with.

    Args:
        identity: Content hash of the adapter, or the base model: keys and values depend on it.
        name: Name of the adapter's weights in the model runner, or None.
    """

    identity: str
    name: str | None


class RunningGeneration(Answer):
    """A request with its tokens' place in the KV cache and its sampler.

    Args:
        request: What to generate.
        listener: Gets deltas.
    """

    def __init__(self, request: GenerationRequest, listener: Callable[[GenerationDelta], None]) -> None:
        super().__init__(request, listener)
        self.table: BlockTable | None = None
        #: Tokens whose keys and values are in the cache; the prompt's are prefilled in chunks.
        self.num_computed = 0

    def prepare(self, adapter: AdapterUse, vocab_size: int) -> None:
        """Set the weights and the sampler; the prompt is there.

        Args:
            adapter: The weights.
            vocab_size: Width of the logits.
        """
        self.adapter = adapter
        self.sampler = RowSampler(self.prompt.input_ids, self.request.sampling, vocab_size)

    def join(self, table: BlockTable) -> None:
        """Join the batch, with KV blocks of its own and those that the prefix cache has."""
        self.table = table
        self.num_computed = table.num_shared_tokens
        self.start(table.num_shared_tokens)

    @property
    def num_max_tokens(self) -> int:
        """Tokens of the prompt and the longest answer."""
        return len(self.prompt.input_ids) + self.prompt.max_new_tokens
