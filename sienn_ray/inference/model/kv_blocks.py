"""The KV blocks of requests, and the prefix cache over them.

Keys and values lie in blocks of a fixed number of tokens (paged attention, as in vLLM: Kwon et al. 2023,
arXiv:2309.06180). A request gets KV blocks for its prompt and its longest answer when it joins the batch, so that none
is preempted, next to one another where there is room, so that attention reads them in one piece.

Full blocks of a request stay in the prefix cache when it has left, until they are evicted, the least recently used ones
first: another request of the same adapter with the same first tokens shares them instead of computing them again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class BlockTable:
    """The blocks of one request, in the order of its tokens.

    Args:
        identity: The weights that keys and values depend on: the adapter's content hash, or the base model.
        blocks: Numbers of blocks.
        num_shared_tokens: First tokens whose keys and values were in the prefix cache.
    """

    identity: str
    blocks: list[int]
    num_shared_tokens: int
    # Content numbers of the blocks that are in the prefix cache so far.
    known: list[int] = field(default_factory=list)


class BlockPool:
    """Allocates KV blocks, and keeps the prefix cache. For one thread.

    Args:
        num_blocks: Blocks in the cache.
        block_tokens: Tokens in a block.
    """

    def __init__(self, num_blocks: int, block_tokens: int) -> None:
        self.num_blocks = num_blocks
        self.block_tokens = block_tokens
        self._num_users = [0] * num_blocks
        # Content of a block: (content number of the block before, or the identity; its tokens) -> (block, own number).
        self._contents: dict[tuple[int | str, tuple[int, ...]], tuple[int, int]] = {}
        self._key_of: dict[int, tuple[int | str, tuple[int, ...]]] = {}
        self._num_contents = 0
        # Blocks of the prefix cache without a user, the least recently used first.
        self._evictable: OrderedDict[int, None] = OrderedDict()
        self._empty = set(range(num_blocks))

    @property
    def num_free(self) -> int:
        """Blocks without a user."""
        return len(self._evictable) + len(self._empty)

    def num_blocks_for(self, num_tokens: int) -> int:
        """Return the number of blocks that hold so many tokens."""
        return -(-num_tokens // self.block_tokens)

    def take(self, identity: str, prompt: Sequence[int], num_tokens: int) -> BlockTable | None:
        """Allocate blocks for a request, those of a cached prefix included; None while there are too few.

        With 4 tokens a block, a prompt of 10 tokens of which 9 are those of an earlier one shares 2 blocks.

        Args:
            identity: See `BlockTable`.
            prompt: The request's tokens so far. The last one is never shared, since its logits are wanted.
            num_tokens: Tokens of the prompt and the longest answer.
        """
        shared, known = self._cached_prefix(identity, prompt)
        num_new = self.num_blocks_for(num_tokens) - len(shared)
        if num_new > self.num_free - sum(1 for block in shared if self._num_users[block] == 0):
            return None
        for block in shared:
            self._use(block)
        new = self._choose(num_new)
        for block in new:
            self._evict(block)
            self._use(block)
        return BlockTable(identity, shared + new, len(shared) * self.block_tokens, known)

    def note(self, table: BlockTable, tokens: Sequence[int]) -> None:
        """Add full blocks to the prefix cache.

        Args:
            table: A request's blocks.
            tokens: The request's tokens as far as they are computed.
        """
        size = self.block_tokens
        for number in range(len(table.known), len(tokens) // size):
            key = self._key(table, tokens, number)
            found = self._contents.get(key)
            if found is None:  # else another request was first, and this block stays out of the cache
                self._num_contents += 1
                found = table.blocks[number], self._num_contents
                self._contents[key] = found
                self._key_of[table.blocks[number]] = key
            table.known.append(found[1])

    def give_back(self, table: BlockTable) -> None:
        """Free a request's blocks; those in the prefix cache stay there until they are evicted."""
        # The last ones first, so that prefixes, which others are likelier to share, are evicted after what follows.
        for block in reversed(table.blocks):
            self._num_users[block] -= 1
            if self._num_users[block] == 0:
                if block in self._key_of:
                    self._evictable[block] = None
                else:
                    self._empty.add(block)
        table.blocks.clear()

    def _key(self, table: BlockTable, tokens: Sequence[int], number: int) -> tuple[int | str, tuple[int, ...]]:
        before = table.known[number - 1] if number else table.identity
        return before, tuple(tokens[number * self.block_tokens : (number + 1) * self.block_tokens])

    def _cached_prefix(self, identity: str, prompt: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the cached blocks of the prompt's longest prefix, and their content numbers."""
        blocks: list[int] = []
        numbers: list[int] = []
        before: int | str = identity
        for start in range(0, len(prompt) - self.block_tokens, self.block_tokens):
            found = self._contents.get((before, tuple(prompt[start : start + self.block_tokens])))
            if found is None:
                break
            blocks.append(found[0])
            numbers.append(found[1])
            before = found[1]
        return blocks, numbers

    def _use(self, block: int) -> None:
        self._num_users[block] += 1
        self._evictable.pop(block, None)
        self._empty.discard(block)

    def _choose(self, num: int) -> list[int]:
        """Choose free blocks: empty ones before evictable ones, and side by side if that evicts few more."""
        free = [*sorted(self._empty), *self._evictable]
        size = max(num, len(self._empty))
        while num:
            found = _side_by_side(sorted(free[:size]), num)
            if found or size >= len(free):
                return found or free[:num]
            size = min(2 * size, len(free))
        return []

    def _evict(self, block: int) -> None:
        """Take a block, if it is there, out of the prefix cache."""
        key = self._key_of.pop(block, None)
        if key is not None:
            del self._contents[key]


def _side_by_side(free: Sequence[int], num: int) -> list[int]:
    """Return the first `num` consecutive numbers, or none."""
    for first in range(len(free) - num + 1):
        if free[first + num - 1] - free[first] == num - 1:
            return list(free[first : first + num])
    return []


def runs(blocks: Sequence[int], block_tokens: int, num_tokens: int) -> list[tuple[int, int]]:
    """Return the slots of a request's first tokens: (first slot, slots) for each run of neighbouring blocks.

    Args:
        blocks: The request's blocks.
        block_tokens: Tokens in a block; a block's slots begin at its number times this.
        num_tokens: Number of first tokens.
    """
    found: list[tuple[int, int]] = []
    left = num_tokens
    for number, block in enumerate(blocks):
        if left <= 0:
            break
        size = min(block_tokens, left)
        left -= size
        if number and block == blocks[number - 1] + 1:
            start, length = found[-1]
            found[-1] = (start, length + size)
        else:
            found.append((block * block_tokens, size))
    return found
