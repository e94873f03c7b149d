"""The contract of a policy: one frozen backbone, shared; one :class:`PolicySession` per task, holding all that is adapted.

A session follows ROSA2 Algorithm 1: ``begin`` an attempt with the current guidance (words), ``act`` step by step, and after a
failed attempt ``adapt`` (weights).  Sessions share nothing but the backbone, may be used from different threads, and the engine
behind them may batch their requests.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envs.actions import Action
from envs.base import Environment, Modality, Observation, TaskSpec
from envs.errors import UsageError


@dataclass(frozen=True)
class Passes:
    """What replies cost, whatever the machine: rows of the model's calls.

    Attributes:
        forward: A row is one sequence in one call, be it a prompt or one more token; ten beams are ten rows.  A reply of T tokens takes T.
        prefill: Those among them that read a prompt (or scored a whole reply after one).
    """

    forward: int = 0
    prefill: int = 0

    def __add__(self, other: Passes) -> Passes:
        return Passes(self.forward + other.forward, self.prefill + other.prefill)


NO_PASSES = Passes()


@dataclass(frozen=True)
class Decision:
    """One reply of a policy.

    Attributes:
        text: The reply, verbatim.
        thought: Its thought part ("" if it has none).
        actions: The parsed actions in pixels of the observation; one :class:`~envs.actions.Invalid` if the text is not an action.
        action_text: The reply's action part in the model's own words and coordinate frame, for guidance and history.
        tokens: Generated tokens.
        seconds: Wall-clock seconds of the call, waiting for a batch included.
        logprob: Sum of log-probabilities of the generated tokens under the adapted policy at temperature 1, if known.
        token_ids: The reply's own tokens, its end included; empty if not known.
        token_logprobs: Their log-probabilities, as ``logprob``; empty if not known.
        redrawn: Replies drawn before this one and not taken, see ``SamplingConfig.no_repeat``; their tokens count.
        redrawn_unparsable: Those among them that were not actions.
        passes: What the reply cost, those that were not taken included.
    """

    text: str
    actions: tuple[Action, ...]
    thought: str = ""
    action_text: str = ""
    tokens: int = 0
    seconds: float = 0.0
    logprob: float | None = None
    token_ids: tuple[int, ...] = ()
    token_logprobs: tuple[float, ...] = ()
    redrawn: int = 0
    redrawn_unparsable: int = 0
    passes: Passes = NO_PASSES


@dataclass(frozen=True)
class PastAttempt:
    """An earlier attempt of a session, as its conversation keeps it.

    Attributes:
        guidance: What it was made under.
        turns: (observation, reply verbatim) per step.
        feedback: What the user said to it, "" if nothing.
    """

    guidance: str
    turns: tuple[tuple[Observation, str], ...]
    feedback: str = ""


@dataclass(frozen=True)
class ReplyTokens:
    """What an update did to the tokens of one reply.

    Attributes:
        step: The reply's index in the attempt, 0-based.
        before, after: log π of each token in the attempt's own context, before and after the update.
        pieces: Their texts.
    """

    step: int
    before: tuple[float, ...]
    after: tuple[float, ...]
    pieces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Update:
    """What one weight update did: the numbers of ROSA's tables and ROSA2's Figure 3.

    Attributes:
        numbers: JSON-serialisable.
        replies: What it did to every token of the attempt; empty if it was not accepted or has not seen all of them.
        passes: Passes through the backbone that it took; ROSA's own step takes none.
    """

    method: str
    accepted: bool
    seconds: float
    numbers: dict[str, Any] = field(default_factory=dict)
    replies: tuple[ReplyTokens, ...] = ()
    passes: Passes = NO_PASSES


class PolicySession(abc.ABC):
    """The policy on one task: its history, its guidance and its adapter."""

    def meet(self, env: Environment) -> None:
        """The environment that the coming attempt is made in, before :meth:`begin`.

        For reference policies only, which know more than an agent may: an expert asks it what to do (``env.oracle``), a random
        policy what can be done (``env.action_space``).  A policy whose results are to mean something leaves it alone.
        """

    def converse(self, history: Sequence[PastAttempt]) -> None:
        """The coming attempt goes on with the conversation of the earlier ones (``history=conversation``), before :meth:`begin`.

        ``history`` is all of them, oldest first, as ROSA2 Algorithm 1 has it: H_t = H_{t-1} ∪ {ŷ_t, x*}.  It is given again for every
        attempt, so that nothing of it need be kept; without this call an attempt begins afresh.

        Raises:
            UsageError: this policy begins every attempt afresh; its policy's ``converses`` says so beforehand.
        """
        raise UsageError(f"{type(self).__name__} begins every attempt afresh.", "Use --set history=fresh.")

    def show(self, examples: Sequence[tuple[str, str]]) -> None:
        """Questions that earlier sessions solved, with their answers (``--experience``), before :meth:`begin`; the nearest one last.

        For policies that say ``takes_examples``; others leave them.
        """

    def start(self, theta: Any) -> None:
        """θ₁: start from an adapter made of earlier sessions (:mod:`policies.prior`), before :meth:`begin`.

        Nothing if the session has weights already, because it was resumed.

        Raises:
            UsageError: this policy has no weights, or adapts another kind of adapter.
        """
        raise UsageError(f"{type(self).__name__} has no weights to start from.", "Use experience.weights.scope=none.")

    def rows(self, reward: float) -> Any:
        """The tokens of the attempt just gone through (:meth:`relive`) as :class:`policies.prior.step.Rows`; None if it has none."""
        return None

    def prepare(
        self,
        observation: Observation,
        instruction: str,
        *,
        guidance: str = "",
        attempt: int = 1,
        history: Sequence[PastAttempt] = (),
    ) -> Passes:
        """Read what the first prompt of the coming attempt begins with, before :meth:`begin`, and perhaps beside :meth:`adapt` in another
        thread: nothing of the session changes, and nothing of its weights is used.

        Args:
            observation, instruction: Of the task as it was reset.
            history: As for :meth:`converse`; empty where the attempt begins afresh.

        Returns:
            What it took; nothing where a policy has nothing to read beforehand.
        """
        return NO_PASSES

    @abc.abstractmethod
    def begin(self, instruction: str, *, guidance: str = "", attempt: int = 1) -> None:
        """Start an attempt (1-based): forget the previous history, keep the adapter.  ``guidance`` is put after the instruction."""

    @abc.abstractmethod
    def act(self, observation: Observation) -> Decision:
        """The next reply.  Text that is not an action comes back as an Invalid action, never as an exception.

        Raises:
            PolicyError: the model cannot answer at all.
            InfrastructureError: an endpoint failed; the attempt is void.
        """

    def relive(self, steps: Sequence[tuple[Observation, str]], tokens: Sequence[Sequence[int]] = ()) -> list[float]:
        """Go through a recorded attempt instead of acting: (observation, reply) per step, after :meth:`begin` and before :meth:`adapt`.

        Returns the log-probability of each reply under the adapter in force; what acting would have captured is captured.

        Args:
            tokens: The recorded token ids of each reply, if there are any; a reply without them is tokenized from its text.

        Raises:
            UsageError: this policy cannot score replies.
            AdaptationError: a reply does not fit into memory, or its tokens are another model's.
        """
        raise UsageError(
            f"{type(self).__name__} cannot score recorded replies.", "Choose a policy that runs here with its weights."
        )

    def propose(self) -> list[Decision]:
        """What this session would now reply, greedily, at every step of the attempt that it made or relived, up to each as it was.

        Raises:
            UsageError: this policy keeps no history.
        """
        raise UsageError(f"{type(self).__name__} cannot go back to a step.", "Choose a policy that runs here with its weights.")

    def adapt(self, rewards: Sequence[float], *, refined: str | None = None, guidance: str | None = None) -> Update | None:
        """Update the weights from the attempt just made.

        ``rewards`` has one r_i in [-1, 1] per step (ROSA Eq. 3), all equal when sparse.  With ``refined`` guidance the update's
        numbers also say what the residual is under it (ROSA2 Theorem 4.1); the update itself is the same.  ``guidance`` is that of the
        next attempt, given where the method learns from it (``adapt.weights.target=guided``).

        Returns None if this session was opened without weight adaptation.

        Raises:
            AdaptationError: the update could not be computed; the adapter is unchanged.
        """
        return None

    def recall(self, steps: Sequence[tuple[Observation, tuple[Action, ...]]]) -> None:
        """Resuming a session: what was observed and done in an attempt made earlier, step by step, for ``no_repeat`` and ``next_best``;
        only what was blamed (:meth:`blame`).
        """

    def recall_replies(self, steps: Sequence[tuple[Observation, str]]) -> None:
        """Resuming a session: what was observed and replied, verbatim, in an attempt made earlier, all of it, after :meth:`recall`."""

    def blame(self, credit: Sequence[float]) -> None:
        """The attempt just made has failed: ``credit`` per step.  ``no_repeat`` and ``next_best`` leave out what was blamed (< 0)."""

    def heed(self, feedback: str) -> None:
        """What the user said to the last attempt, the one just made or the one that was recalled last ("" if nothing); for
        ``consistent``.
        """

    def discard(self) -> None:
        """Drop what was captured of the attempt in flight (it was void: the machinery failed).

        The same attempt is begun again, or the session ends.
        """

    def rollback(self) -> None:
        """Undo the last accepted update."""
        raise UsageError(f"{type(self).__name__} has no weights to roll back.")

    def save_adapter(self, folder: Path) -> bool:
        """Write the adapter in PEFT's layout; False if there is none yet."""
        return False

    def load_adapter(self, folder: Path) -> None:
        """Continue from a saved adapter (resuming a session)."""
        raise UsageError(f"{type(self).__name__} has no weights to load.")

    def close(self) -> None:
        """Drop the adapter and everything captured.  May be called twice."""


class Policy(abc.ABC):
    """A named policy; expensive parts are loaded once and shared by all sessions."""

    name: str
    adaptable = False
    """True if ``open`` accepts a weight adaptation."""
    needs: frozenset[Modality] = frozenset({"picture"})
    """What an observation must have for this policy; a run in which it has not is refused before it starts."""
    converses = False
    """True if an attempt can go on with the conversation of the earlier ones, see :meth:`PolicySession.converse`."""
    takes_examples = False
    """True if solved questions can be shown before a question, see :meth:`PolicySession.show`."""
    env_options: Mapping[str, Any] = {}
    """Options that this policy asks of its environments, e.g. ``{"oracle": True}`` for one that follows their expert."""

    @abc.abstractmethod
    def open(self, task: TaskSpec, *, seed: int, adapt: Any = None) -> PolicySession:
        """A session for one task.  ``seed`` fixes its sampling; ``adapt`` is a weight-adaptation config or None.

        Raises:
            UsageError: weight adaptation asked of a policy without weights.
        """

    def complete(self, text: str, *, max_new_tokens: int = 1024) -> str:
        """The backbone's own greedy answer to a text, every adapter off (the ``self`` engine of the words axis).

        Raises:
            UsageError: this policy cannot write text.
        """
        raise UsageError(f"The policy {self.name} cannot write text of its own.", "Use adapt.words.engine=rules or openai:<model>.")

    def fingerprint(self) -> str:
        """Equal for policies whose hidden states and weights mean the same ("" where there are none), wherever they were loaded from."""
        return ""

    def prior(self, sessions: Any, config: Any, common: Any = None) -> tuple[Any, dict[str, Any]]:
        """θ₁ out of stored :class:`policies.prior.step.Rows`, and what is to be recorded of it; None where it would not help.

        Args:
            sessions: What it is made of, one per session, the most important one first.
            config: A :class:`policies.prior.config.PriorConfig`.
            common: The mean of all stored hidden states, [d].

        Raises:
            UsageError: this policy has no weights.
            AdaptationError: it cannot be computed.
        """
        raise UsageError(f"The policy {self.name} has no weights to start from.", "Use experience.weights.scope=none.")

    def describe(self) -> dict[str, Any]:
        """What a run should record of the policy besides its name: settings in force, JSON-serialisable."""
        return {}

    def memory(self) -> dict[str, float]:
        """Memory figures in MB that only the policy knows (e.g. ``gpu_peak``)."""
        return {}

    def close(self) -> None:
        """Free the backbone.  May be called twice."""
