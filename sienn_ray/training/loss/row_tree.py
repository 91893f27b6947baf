"""A tree of what rows begin with in common, from which a pack is laid out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int64]


class Piece:
    """A piece of the tree: tokens, and the pieces that go on from them.

    Args:
        tokens: Its tokens.
        parent: The piece before it; None is the tree's root, which has no tokens.
        depth: Tokens of its rows before it.
    """

    def __init__(self, tokens: Tokens, parent: Piece | None, depth: int) -> None:
        self.tokens = tokens
        self.parent = parent
        self.depth = depth
        self.followers: list[Piece] = []
        # By their first tokens, as many as rows have to share; shorter followers share nothing.
        self.by_beginning: dict[bytes, Piece] = {}
        # Among the pieces, and where it begins in the sequence.
        self.number = 0
        self.start = 0

    def chain(self) -> list[Piece]:
        """Return the pieces from the root's followers to this one."""
        found: list[Piece] = []
        piece = self
        while piece.parent is not None:
            found.append(piece)
            piece = piece.parent
        return found[::-1]


class RowTree:
    """Rows by their beginnings.

    Args:
        min_shared: Tokens in common, at least 1, that rows share.

    Attributes:
        num_tokens: Tokens of all pieces: those of the rows, shared ones once.
    """

    def __init__(self, min_shared: int) -> None:
        self._min_shared = min_shared
        self._root = Piece(np.empty(0, dtype=np.int64), None, 0)
        self.num_tokens = 0

    def insert(self, ids: Tokens) -> Piece:
        """Add a row; gives the piece that it ends with."""
        piece, depth = self._root, 0
        while True:
            rest = ids[depth:]
            # Followers differ within their first tokens, or they would be one: so there is one at the most.
            nearest = piece.by_beginning.get(self._beginning(rest)) if len(rest) >= self._min_shared else None
            if nearest is None:
                return self._add(piece, rest, depth)
            common = _num_common(nearest.tokens, rest)
            piece = nearest if common == len(nearest.tokens) else self._split(piece, nearest, common)
            depth += common
            if depth == len(ids):
                return piece

    def in_order(self) -> list[Piece]:
        """Number all pieces, and return them, each before those that go on from it."""
        found: list[Piece] = []
        waiting = self._root.followers[::-1]
        start = 0
        while waiting:
            piece = waiting.pop()
            piece.number, piece.start = len(found), start
            start += len(piece.tokens)
            found.append(piece)
            waiting += piece.followers[::-1]
        return found

    def _add(self, parent: Piece, tokens: Tokens, depth: int) -> Piece:
        piece = Piece(tokens, parent, depth)
        parent.followers.append(piece)
        self._index(parent, piece)
        self.num_tokens += len(tokens)
        return piece

    def _split(self, parent: Piece, follower: Piece, size: int) -> Piece:
        """Put the first tokens of a follower into a piece of their own between the two, and return that."""
        first = Piece(follower.tokens[:size], parent, follower.depth)
        first.followers = [follower]
        parent.followers[parent.followers.index(follower)] = first
        self._index(parent, first)
        follower.tokens, follower.parent, follower.depth = follower.tokens[size:], first, follower.depth + size
        self._index(first, follower)
        return first

    def _index(self, parent: Piece, follower: Piece) -> None:
        if len(follower.tokens) >= self._min_shared:
            parent.by_beginning[self._beginning(follower.tokens)] = follower

    def _beginning(self, tokens: Tokens) -> bytes:
        return tokens[: self._min_shared].tobytes()


def _num_common(first: Tokens, second: Tokens) -> int:
    """Tokens that both begin with."""
    length = min(len(first), len(second))
    differences: Any = (first[:length] != second[:length]).nonzero()[0]
    return int(differences[0]) if len(differences) else length
