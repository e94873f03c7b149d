"""A reply drawn as if what was tried did not exist: exactly, and without reading the prompt again.

Let B be the replies that do not count (they parse to a tried action, are no action, or do not end).  Wanted is π(· | not B).  B cannot
be listed, but a part R of it can: every reply that was drawn and did not count and, below the thought of each, every tried action's own
spelling.  So draw from π(· | not R), and where the draw is in B all the same, add it (and the tried actions below its thought) to R and
draw again: what is accepted is distributed as π(· | not B), whatever R was at the time, since R ⊂ B.

R is a tree of tokens.  With p the probability of a token after its node and kept(v) the share of what follows v that is not in R,

    kept(node) = 1 − Σ_{v in R's tree} p_v (1 − kept(v))          kept = 0 where a reply of R ends

and a token is drawn with probability p_v kept(v) / kept(node).  A node's logits are kept with it, so that
drawing again costs only the tokens after R is left.  What asks for nodes is written as a generator
(:data:`policies.tree.Work`), so that replies to several prompts are drawn again in the same passes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from policies.sampler import nucleus
from policies.sampling import SamplingConfig
from policies.tree import ROOT, Growth, TokenTree, Work

MAX_DRAWS = 64
"""Draws for one reply at most; what is left then is so improbable that it is not worth looking for."""

MAX_NODES = 256
"""Tokens of a tree at which no more is drawn (or three whole replies, if that is more): each is a row of a pass, and the logits after it
take memory.  On the tuning seeds of ``benchmarks/comparison.py reasoning`` no reply that took more than 64 was right but where the user
gives hints (3 of 21), and of those that took more than 256 none."""

NEGLIGIBLE = 1e-4
"""A reply that does not count and is less probable than this is not remembered: it hardly comes again, and its logits take memory."""

LEAST_KEPT = 1e-9
"""If no more than this share of the replies is left, there is nothing to draw from."""


@dataclass(frozen=True)
class Exclusion:
    """What is not to be drawn.

    Attributes:
        counts: Whether a reply's text may be given; called in whichever thread runs the model, so it depends on its text alone.
        parse: Whether it is an answer or action at all.
        action_at: The token of a reply, by the texts of its tokens, with which its action begins.
        spellings: Tokens of the tried actions, from there to the reply's end.
    """

    counts: Callable[[str], bool]
    parse: Callable[[str], bool]
    action_at: Callable[[Sequence[str]], int]
    spellings: tuple[tuple[int, ...], ...] = ()


@dataclass
class _Node:
    """A node of R's tree.

    Attributes:
        logits: After it, [V], as the model gives them.
        total: log Σ e^z of those that are drawn from.
        known: What is known to follow: the token's probability, and the node's number (None where a reply of R ends).
        kept: As above.
    """

    logits: Tensor
    total: float
    known: dict[int, tuple[float, int | None]] = field(default_factory=dict)
    kept: float = 1.0


@dataclass(frozen=True)
class Drawn:
    """A reply.

    Attributes:
        tokens: Its tokens.
        logprobs: log π of each, at temperature 1 and without penalties.
        ended: Whether it has ended.
        node: Where its last token was chosen.
    """

    tokens: list[int]
    logprobs: list[float]
    ended: bool
    node: int


class Excluding:
    """Draws from π(· | not R) below one prompt.

    Args:
        tree: Whose prompt was read.
        sampling: How to draw; at temperature 0, greedily from the conditional policy.
        stops: Tokens that end a reply.
        generator: Of this row's random stream.
        prompt: Token ids of the prompt; needed with a repetition penalty.
    """

    def __init__(
        self, tree: TokenTree, sampling: SamplingConfig, stops: frozenset[int], generator: torch.Generator,
        prompt: Sequence[int] = (),
    ) -> None:  # fmt: skip
        self._tree, self._sampling, self._stops, self._generator = tree, sampling, stops, generator
        self._warm = sampling if sampling.temperature else replace(sampling, temperature=1.0, top_p=1.0)
        self._prompt = torch.tensor(list(prompt), dtype=torch.long)
        self._nodes: dict[int, _Node] = {}
        self._add(ROOT, tree.root.logits)

    @property
    def kept(self) -> float:
        """The share of the policy that is not in R."""
        return self._nodes[ROOT].kept

    def exclude(self, replies: Sequence[Sequence[int]]) -> Work[None]:
        """Put replies into R; their ends included.  One pass for all that is new of them."""
        parents: list[int] = []
        tokens: list[int] = []
        new: dict[tuple[int, int], int] = {}
        ends: dict[tuple[int, int], None] = {}
        for reply in replies:
            at = ROOT
            for token in reply[:-1]:
                child = self._child(at, token)
                if child is None:
                    child = new.get((at, token))
                if child is None:
                    child = new[at, token] = self._tree.size + len(parents)
                    parents.append(at)
                    tokens.append(token)
                at = child
            ends[at, reply[-1]] = None
        yield from self._know(parents, tokens)
        for at, token in ends:
            self._follow(at, token, None)
        self._renew({at for at, _ in ends})

    def draw(self, limit: int) -> Work[Drawn]:
        """One reply from π(· | not R), of at most ``limit`` tokens."""
        node, tokens, logprobs = ROOT, list[int](), list[float]()
        while True:
            token = self._choose(node)
            tokens.append(token)
            logprobs.append(self._logprob(node, token))
            if token in self._stops or len(tokens) == limit:
                return Drawn(tokens, logprobs, token in self._stops, node)
            child = self._child(node, token)
            node = (yield from self._know([node], [token]))[0] if child is None else child

    @property
    def size(self) -> int:
        """Nodes so far."""
        return self._tree.size

    @property
    def held_mb(self) -> float:
        """Memory of the logits that are kept."""
        row = self._tree.root.logits
        return len(self._nodes) * row.numel() * row.element_size() / 2**20

    def forget(self, drawn: Drawn, since: int) -> bool:
        """Forget the nodes numbered from ``since``, which were made for this reply, if it is improbable enough; whether it was.

        It may be drawn again then, and be refused again: R need not have all of B.
        """
        line = self._line(drawn.node)
        probability = math.prod(self._nodes[at].known[token][0] for at, token in zip(line[:-1], drawn.tokens, strict=False))
        if probability >= NEGLIGIBLE or self._sampling.temperature == 0:  # greedily it would come again at once
            return False
        for at, token, number in zip(line[:-1], drawn.tokens, line[1:], strict=False):
            if number >= since:
                self._nodes[at].known.pop(token)
        for number in line[1:]:
            if number >= since:
                del self._nodes[number]
        return True

    def ends(self, reply: Sequence[int]) -> bool:
        """Whether a reply has ended, not only stopped at its limit."""
        return reply[-1] in self._stops

    def known(self, reply: Sequence[int]) -> Drawn:
        """A reply of R."""
        node, logprobs = ROOT, [self._logprob(ROOT, reply[0])]
        for token, following in itertools.pairwise(reply):
            child = self._child(node, token)
            assert child is not None
            node = child
            logprobs.append(self._logprob(node, following))
        return Drawn(list(reply), logprobs, self.ends(reply), node)

    def _logprob(self, node: int, token: int) -> float:
        row = self._nodes[node].logits
        return float(row[token] - row.logsumexp(-1))

    def _line(self, node: int) -> list[int]:
        """The nodes from the prompt's end to this one, both included."""
        line = [node]
        while line[-1] != ROOT:
            line.append(self._tree.parent(line[-1]))
        return line[::-1]

    # ------------------------------------------------------------------------------------------------------- the tree of R
    def _child(self, node: int, token: int) -> int | None:
        """The node that ``token`` leads to, if it was computed."""
        return self._nodes[node].known.get(token, (0.0, None))[1] if node in self._nodes else None

    def _know(self, parents: Sequence[int], tokens: Sequence[int]) -> Work[list[int]]:
        """Compute new nodes, in one call."""
        if not parents:
            return []
        numbers, logits = yield Growth(parents, tokens)
        for parent, token, number, row in zip(parents, tokens, numbers, logits, strict=True):
            self._add(number, row)
            self._follow(parent, token, number)
        return numbers

    def _add(self, number: int, row: Tensor) -> None:
        """A node, and the logits [V] after it."""
        self._nodes[number] = _Node(row, 0.0)
        self._nodes[number].total = float(self._warmed(number).double().logsumexp(-1))

    def _warmed(self, number: int) -> Tensor:
        """The logits after a node that are drawn from, [V]."""
        row, settings = self._nodes[number].logits, self._sampling
        if settings.repetition_penalty != 1 or settings.frequency_penalty:
            path = torch.tensor(self._tree.path(number), dtype=torch.long)
            seen = torch.cat([self._prompt, path]).to(row.device) if settings.repetition_penalty != 1 else path[:0].to(row.device)
            some = row[seen]
            row = row.index_put(
                (seen,), torch.where(some > 0, some / settings.repetition_penalty, some * settings.repetition_penalty)
            )
            row = row - settings.frequency_penalty * torch.bincount(path, minlength=len(row)).to(row)
        return nucleus(row, self._warm)

    def _follow(self, number: int, token: int, child: int | None) -> None:
        """``token`` may follow a node: with a node of its own, or as the end of a reply of R."""
        node = self._nodes[number]
        p = math.exp(float(self._warmed(number)[token]) - node.total)
        node.known[token] = (p, child)

    def _renew(self, numbers: AbstractSet[int]) -> None:
        """Work out what is kept below these nodes and every node above them."""
        above = set(numbers)
        for number in numbers:
            while number != ROOT:
                number = self._tree.parent(number)
                above.add(number)
        for number in sorted(above, reverse=True):  # a node's number is greater than its parent's
            node = self._nodes[number]
            gone = sum(p * (1.0 if child is None else 1.0 - self._nodes[child].kept) for p, child in node.known.values())
            node.kept = max(0.0, 1.0 - gone)

    def _choose(self, number: int) -> int:
        scores = self._warmed(number).clone()
        for token, (_, child) in self._nodes[number].known.items():
            kept = 0.0 if child is None else self._nodes[child].kept
            scores[token] = scores[token] + math.log(kept) if kept else -torch.inf
        if self._sampling.temperature == 0:
            return int(scores.argmax())
        noise = torch.empty(scores.shape, dtype=torch.float32).exponential_(generator=self._generator)
        return int((scores - noise.log().to(scores.device)).argmax())


@dataclass(frozen=True)
class Redrawn:
    """What :func:`redraw` gives: the reply and its text, how many were drawn before it and not taken, and the tokens of them all."""

    drawn: Drawn
    text: str
    others: int
    unparsable: int
    tokens: int


def redraw(
    excluding: Excluding, exclusion: Exclusion, first: Sequence[int], *, limit: int, decode: Callable[[Sequence[int]], str],
    pieces: Callable[[Sequence[int]], Sequence[str]],
) -> Work[Redrawn]:  # fmt: skip
    """A reply that counts, after one that was drawn and does not.  If there is none: the last one that is an action, else the last one.

    Args:
        excluding: With nothing in R yet.
        exclusion: What counts.
        first: Tokens of the reply that was drawn.
        limit: Tokens of a reply at most.
        decode: The text of a reply.
        pieces: The text of every token.
    """
    tokens, ended = list(first), excluding.ends(first)
    made: list[tuple[Drawn, str, bool]] = []  # all but the first, and whether they are an action
    text, total = decode(first), len(first)
    unparsable = since = 0
    while True:
        parsable = exclusion.parse(text) and ended
        unparsable += not parsable
        if not made or not excluding.forget(made[-1][0], since):
            thought = tokens[: exclusion.action_at(pieces(tokens))]
            below = [[*thought, *spelling] for spelling in exclusion.spellings if len(thought) + len(spelling) <= limit]
            yield from excluding.exclude([tokens, *(reply for reply in below if not exclusion.counts(decode(reply)))])
        if len(made) == MAX_DRAWS or excluding.size >= max(MAX_NODES, 3 * limit) or excluding.kept < LEAST_KEPT:
            break
        since = excluding.size
        drawn = yield from excluding.draw(limit)
        tokens, ended, text = drawn.tokens, drawn.ended, decode(drawn.tokens)
        total += len(tokens)
        made.append((drawn, text, ended and exclusion.parse(text)))
        if ended and exclusion.counts(text):
            return Redrawn(drawn, text, len(made), unparsable, total)
    own = (excluding.known(first), decode(first), excluding.ends(first) and exclusion.parse(decode(first)))
    taken = next((one for one in reversed(made) if one[2]), own)
    return Redrawn(taken[0], taken[1], len(made), unparsable - (not taken[2]), total)
