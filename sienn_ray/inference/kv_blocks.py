"""Which blocks of the key/value cache belong to which request, and which can be used again for an equal beginning.

Keys and values live in blocks of a fixed number of tokens. A request gets blocks for all the tokens that it may come to
when it joins, next to one another where there is room, so its attention reads them where they are. Full blocks of a
prompt stay known after their request has left, until their place is needed: another request of the same adapter with
the same beginning takes them as they are (as in vLLM, Kwon et al. 2023, arXiv:2309.06180).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class BlockTable:
    """The blocks of one request, in the order of its tokens.

    Args:
        identity: What its keys and values depend on beside the tokens: the adapter's content, or the base model.
        blocks: Numbers of blocks.
        num_shared_tokens: Tokens at the beginning whose keys and values were there already.
    """

    identity: str
    blocks: list[int]
    num_shared_tokens: int
    # Content numbers of the blocks that are known to the pool so far.
    known: list[int] = field(default_factory=list)


class BlockPool:
    """Gives out blocks, never more than there are. For one thread.

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
        # Blocks without a user that hold content, the least recently used first.
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._empty = set(range(num_blocks))

    @property
    def num_free(self) -> int:
        """Blocks without a user."""
        return len(self._idle) + len(self._empty)

    def num_blocks_for(self, num_tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-num_tokens // self.block_tokens)

    def take(self, identity: str, prompt: Sequence[int], num_tokens: int) -> BlockTable | None:
        """Blocks for a request, or None while there are too few.

        Args:
            identity: See `BlockTable`.
            prompt: Its tokens so far. At least the last one is left to compute, since its logits are wanted.
            num_tokens: Tokens that it may come to.
        """
        shared, known = self._known_blocks(identity, prompt)
        num_new = self.num_blocks_for(num_tokens) - len(shared)
        if num_new > self.num_free - sum(1 for block in shared if self._num_users[block] == 0):
            return None
        for block in shared:
            self._use(block)
        new = self._choose(num_new)
        for block in new:
            self._forget(block)
            self._use(block)
        return BlockTable(identity, shared + new, len(shared) * self.block_tokens, known)

    def note(self, table: BlockTable, tokens: Sequence[int]) -> None:
        """Make blocks known whose tokens' keys and values are all computed.

        Args:
            table: A request's blocks.
            tokens: Its tokens as far as they are computed.
        """
        size = self.block_tokens
        for number in range(len(table.known), len(tokens) // size):
            key = self._key(table, tokens, number)
            found = self._contents.get(key)
            if found is None:  # else another request was first, and this block stays its request's own
                self._num_contents += 1
                found = table.blocks[number], self._num_contents
                self._contents[key] = found
                self._key_of[table.blocks[number]] = key
            table.known.append(found[1])

    def give_back(self, table: BlockTable) -> None:
        """A request has left."""
        # The last ones first, so that beginnings, which others are likelier to have as well, outlive ends.
        for block in reversed(table.blocks):
            self._num_users[block] -= 1
            if self._num_users[block] == 0:
                if block in self._key_of:
                    self._idle[block] = None
                else:
                    self._empty.add(block)
        table.blocks.clear()

    def _key(self, table: BlockTable, tokens: Sequence[int], number: int) -> tuple[int | str, tuple[int, ...]]:
        before = table.known[number - 1] if number else table.identity
        return before, tuple(tokens[number * self.block_tokens : (number + 1) * self.block_tokens])

    def _known_blocks(self, identity: str, prompt: Sequence[int]) -> tuple[list[int], list[int]]:
        """Blocks with the prompt's beginning, and their content numbers."""
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
        self._idle.pop(block, None)
        self._empty.discard(block)

    def _choose(self, num: int) -> list[int]:
        """Free blocks: empty ones before those with content, and side by side if that costs little content more."""
        free = [*sorted(self._empty), *self._idle]
        size = max(num, len(self._empty))
        while num:
            found = _side_by_side(sorted(free[:size]), num)
            if found or size >= len(free):
                return found or free[:num]
            size = min(2 * size, len(free))
        return []

    def _forget(self, block: int) -> None:
        key = self._key_of.pop(block, None)
        if key is not None:
            del self._contents[key]


def _side_by_side(free: Sequence[int], num: int) -> list[int]:
    """The first `num` numbers in a row, or none."""
    for first in range(len(free) - num + 1):
        if free[first + num - 1] - free[first] == num - 1:
            return list(free[first : first + num])
    return []


def runs(blocks: Sequence[int], block_tokens: int, num_tokens: int) -> list[tuple[int, int]]:
    """Where a request's first tokens are: (first slot, slots) for each row of neighbouring blocks.

    Args:
        blocks: The request's blocks.
        block_tokens: Tokens in a block; a block's slots begin at its number times this.
        num_tokens: Tokens that are wanted.
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
