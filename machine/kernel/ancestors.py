"""The ancestors of every state of a plan, in memory that grows with the plan and not with its pairs of states.

The states are divided into chains, in which each state follows the one before. So the ancestors of a state are, of
each chain, the states up to one of them, and a state that continues the chain of its only parent shares what is
stored for that parent. States are given by their places in the order of the plan, and parents come before children.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence


class UpTo:
    """A set of states that holds, with each state, all before it on its chain: the last of each chain."""

    __slots__ = ("_chains", "_lasts")

    def __init__(self, lasts: Mapping[int, int]) -> None:
        # eight bytes a chain, where a dictionary takes forty
        self._chains = array("i", sorted(lasts))
        self._lasts = array("i", (lasts[chain] for chain in self._chains))

    def __len__(self) -> int:
        return len(self._chains)

    def last(self, chain: int) -> int:
        """Return the last state of a chain, -1 when there is none."""
        at = bisect_left(self._chains, chain)
        return self._lasts[at] if at < len(self._chains) and self._chains[at] == chain else -1

    def items(self) -> Iterator[tuple[int, int]]:
        """Yield each chain and its last state."""
        return zip(self._chains, self._lasts, strict=True)


class Ancestors:
    """The ancestors of the states whose parents are given, in the order of the plan."""

    def __init__(self, parents: Iterable[Sequence[int]]) -> None:
        self.chain = array("q")
        """The chain of each state."""
        self._position = array("q")  # within its chain
        self._above: list[UpTo] = []  # its own chain is left out, or is there up to an earlier state
        self._unions: dict[tuple[int, ...], UpTo] = {}
        self._counts: dict[int, int] = {}
        ends: list[int] = []
        unused: dict[int, Iterator[tuple[int, int]]] = {}
        nothing = UpTo({})
        for place, over in enumerate(parents):
            chain = next((self.chain[one] for one in over if ends[self.chain[one]] == one), None)
            if chain is not None and len(over) == 1:
                above = self._above[over[0]]
            else:
                above = self.up_to(tuple(over)) if over else nothing
            if chain is None:
                # a chain that ended with an ancestor; one that goes on elsewhere never ends here again
                left = unused.setdefault(id(above), above.items())
                chain = next((one for one, last in left if ends[one] == last), len(ends))
            if chain == len(ends):
                ends.append(place)
                self._position.append(0)
            else:
                self._position.append(self._position[ends[chain]] + 1)
                ends[chain] = place
            self.chain.append(chain)
            self._above.append(above)

    def up_to(self, places: tuple[int, ...]) -> UpTo:
        """Return some states and all their ancestors."""
        found = self._unions.get(places)
        if found is None:
            found = self._unions[places] = self._union(places)
        return found

    def last(self, place: int, chain: int) -> int:
        """Return the last state of a chain that is the one at `place` or an ancestor of it, -1 for none."""
        return place if self.chain[place] == chain else self._above[place].last(chain)

    def follows(self, place: int, other: int) -> bool:
        """Say whether one state is an ancestor of the state at `place`."""
        return place != other and self.last(place, self.chain[other]) >= other

    def count(self, place: int) -> int:
        """Return the number of a state's ancestors."""
        above = self._above[place]
        counted = self._counts.get(id(above))
        if counted is None:
            counted = self._counts[id(above)] = sum(self._position[last] + 1 for _, last in above.items())
        own = above.last(self.chain[place])
        return counted - (0 if own < 0 else self._position[own] + 1) + self._position[place]

    def latest(self, places: Iterable[int]) -> Iterator[int]:
        """Yield, from the last in the plan to the first, those of some states that are no ancestor of another."""
        covered: dict[int, int] = {}
        merged: set[int] = set()
        for place in sorted(places, reverse=True):
            if covered.get(self.chain[place], -1) < place:
                yield place
                self._cover(covered, merged, place)

    def _union(self, places: tuple[int, ...]) -> UpTo:
        covered: dict[int, int] = {}
        merged: set[int] = set()
        for place in sorted(places, key=lambda one: len(self._above[one]), reverse=True):
            self._cover(covered, merged, place)
        return UpTo(covered)

    def _cover(self, covered: dict[int, int], merged: set[int], place: int) -> None:
        """Add a state and its ancestors; `merged` are the shared parts that were added before."""
        above = self._above[place]
        if id(above) not in merged:
            merged.add(id(above))
            if covered:
                for chain, last in above.items():
                    if covered.get(chain, -1) < last:
                        covered[chain] = last
            else:
                covered.update(above.items())
        chain = self.chain[place]
        covered[chain] = max(covered.get(chain, -1), place)
