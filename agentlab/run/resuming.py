"""Coming back to a session: θ, words, guidance and history as its last finished attempt left them, from its files."""

from __future__ import annotations

import os
from collections.abc import Sequence

from agentlab.disk.files import check_files, read_json, read_text
from agentlab.disk.record import load_trace, past
from agentlab.disk.row import Row
from agentlab.disk.store import SessionStore
from agentlab.run.config import RunConfig
from agentlab.run.judging import Bench
from envs.base import TaskSpec
from envs.errors import StoreError
from policies.base import PastAttempt, Policy, PolicySession
from policies.tried import blamed
from retrospect.reflect import Retrospector
from retrospect.trace import Trace

History = tuple[PastAttempt, ...]
"""H: the earlier attempts, oldest first."""


def history_after(config: RunConfig, h: History, trace: Trace) -> History:
    """H_{t+1} = H_t ∪ {ŷ_t, x*}, where it is kept."""
    if config.history == "fresh":
        return ()
    return (*h, past(trace))


class LastState:
    """What a session goes on from.

    Args:
        seed: Of the session.
        words: Brought to where they were; None where nothing is learned in words.
        bench: Whose judgements say what was blamed; None where nobody judges.
    """

    def __init__(
        self, config: RunConfig, policy: Policy, store: SessionStore, task: TaskSpec, *, seed: int, words: Retrospector | None,
        bench: Bench | None,
    ) -> None:  # fmt: skip
        self.config, self.policy, self.store, self.task, self.seed = config, policy, store, task, seed
        self.words, self.bench = words, bench

    def restored(self, made: list[Row]) -> tuple[PolicySession, list[Row], str, History]:
        """θ, rows, x and H as the last finished attempt left them.

        If its files are damaged: as left by the newest attempt whose files are intact.  Later attempts are set aside, reported
        and never counted, because they were made under something that is unavailable now, or cannot be continued.
        """
        why = ""
        for n in range(len(made), 0, -1):
            theta = self._open()
            try:
                x, h = self._take_up(theta, made[:n])
            except StoreError as error:
                theta.close()
                why = why or error.message
                continue
            if n < len(made):
                self.store.set_aside(n + 1, why)
            return theta, made[:n], x, h
        if made:
            self.store.set_aside(1, why)
        return self._open(), [], "", ()

    def _take_up(self, theta: PolicySession, made: list[Row]) -> tuple[str, History]:
        """Bring θ and the words to where the attempts ``made`` left them; returns x and H.

        Raises:
            StoreError: a file that records this is missing or damaged.
        """
        h: History = ()
        if self.config.sampling.remembers or self.config.history != "fresh":
            for row in made:
                trace = load_trace(self.store.attempt_folder(row.attempt))
                theta.recall(blamed([(step.observation, step.actions) for step in trace.steps], self._credit_of(row)))
                theta.recall_replies([(step.observation, step.text) for step in trace.steps])
                theta.heed(trace.feedback)
                h = history_after(self.config, h, trace)
        # Attempts that the weights did not learn from (`switch`) left no file: the newest adapter is the one in force.
        adapted = [row.attempt for row in made if row.adapter]
        if adapted:
            folder = self.store.adapter_folder(adapted[-1])
            check_files(folder)
            theta.load_adapter(folder)
        if self.words is not None:
            self._restore_words(made)
        return self._guidance_after(made[-1]), h

    def _credit_of(self, row: Row) -> Sequence[float]:
        """The credit that a finished attempt was given, one number per step; nothing where all steps were blamed alike."""
        if self.bench is not None and (said := self.bench.credit(row.judge, row.steps)) is not None:
            return said
        if row.words is None:
            return ()
        reflection = read_json(self.store.attempt_folder(row.attempt) / "words.json").get("reflection")
        credit = reflection.get("credit") if isinstance(reflection, dict) else None
        return credit if isinstance(credit, list) and all(isinstance(r, int | float) for r in credit) else ()

    def _open(self) -> PolicySession:
        weights = self.config.adapt.weights
        return self.policy.open(self.task, seed=self.seed, adapt=weights if weights.method != "none" else None)

    def _restore_words(self, made: list[Row]) -> None:
        """From the words.json of the newest attempt that was reflected on."""
        reflected = [row.attempt for row in made if row.words is not None]
        if not reflected or self.words is None:
            return
        path = self.store.attempt_folder(reflected[-1]) / "words.json"
        state = read_json(path).get("state")
        if not isinstance(state, dict):
            raise StoreError(f"{path} is corrupt: it has no state of the words.")
        try:
            self.words.load_state(state)
        except StoreError as error:
            raise StoreError(f"{path}: {error.message}", error.hint) from error

    def _guidance_after(self, row: Row) -> str:
        path = self.store.attempt_folder(row.attempt) / "guidance.txt"
        expected = row.words.characters if row.words is not None else 0
        text = read_text(path) if expected or os.path.lexists(path) else ""
        if row.words is not None and len(text) != expected:
            raise StoreError(f"{path} is not what was written: it has {len(text)} characters, and had {expected}.")
        return text
