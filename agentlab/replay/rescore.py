"""Weight updates computed again from recorded attempts, without an environment, under any adaptation.

The recorded replies are scored by the policy in teacher-forced passes, which gives the H and the probabilities that acting gave;
then θ is updated as in a run, where the schedule says so, and the policy is asked what it would now do, greedily, at every step of the
attempt.  θ goes from attempt to attempt of a session, as it would have.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentlab.disk.files import write_atomic
from agentlab.disk.given import read_given
from agentlab.disk.record import load_trace, past
from agentlab.disk.runs import Attempt, Run, attempt_folders, read_attempt, read_observation
from agentlab.exchange.plain import attempt_data, number, text, token_ids
from agentlab.replay.targets import Selection, refuse_imported, safe_options, with_suite
from agentlab.results.pages import Section, write_pages
from agentlab.run.config import RunConfig
from agentlab.run.judging import credit_of
from agentlab.run.parts import load_policy_of, plan
from agentlab.run.resolve import merge, resolve
from agentlab.run.session import derive_seed
from envs import actions as act
from envs.base import Observation, TaskSpec
from envs.errors import AdaptationError, StoreError, UsageError
from envs.plugins import only_named
from policies.base import Decision, PastAttempt, Policy, PolicySession
from policies.registry import NAMES

MODEL_WORDS = {"dtype": ("float32", "bfloat16", "float16"), "device": ("cpu", "cuda"), "platform": ("computer", "mobile")}
"""Options of a policy that are one of a few words: these are taken from a run, other texts only from the user."""
NUMBERS = ("delta_norm2", "residual_before", "residual_after", "kl_mean", "kl_max", "log_odds_shift")
"""The numbers of an update that the table shows; the file has all of them."""


@dataclass(frozen=True)
class Rescored:
    """One recorded attempt, learned from again.

    Attributes:
        recorded: log π of each reply as it was recorded; None where it was not.
        before, after: The same, scored before and after the update.
        update: Its numbers; None if there was none.
        replies: What it did to every token of each reply (:class:`policies.base.ReplyTokens`).
        proposals: Per step, what was done, and what the policy would do after the update with everything before it as it was.
        error: Why there is no update, or no score ("" if there is).
        learns: Whether the weights learn from this attempt at all (``adapt.switch_at``).
    """

    session: str
    attempt: int
    recorded: list[float | None] = field(default_factory=list)
    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)
    update: dict[str, Any] | None = None
    replies: list[dict[str, Any]] = field(default_factory=list)
    proposals: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""
    learns: bool = True


def settings(run: Run, adapt: str | None, sets: Sequence[str], *, policy: str | None = None, suite: str | None = None) -> RunConfig:
    """The run's configuration under another adaptation.

    Args:
        run: May be a stranger's: what it names is loaded only where that is harmless.
        adapt, sets: As of ``agentlab run``.
        policy: The policy that the user vouches for; needed where the run's own is not one of ours by name.
        suite: The tasks that the user vouches for, where they are files or code.

    Raises:
        UsageError: unknown settings, or settings that change no weights; or the user has to name something.
    """
    refuse_imported(run)
    recorded = str(run.config.get("policy", ""))
    if policy is None and recorded not in NAMES:
        raise UsageError(
            f"The policy of this run is {recorded}, which is loaded from where that says.",
            f"If you trust it, say --policy {recorded}.",
        )
    kept = {name: value for name, value in run.config.items() if name not in {"adapt", "out", "model", "env"}}
    options, _ = _model_options(run)
    own = run.config.get("adapt") or {}
    chosen = {"preset": adapt} if adapt is not None else own
    kept |= {"adapt": chosen, "model": options, "policy": policy or recorded}
    with only_named(policy, suite, *(text.partition("=")[2] for text in sets)):
        tasks = with_suite(RunConfig(suite=str(run.config.get("suite", ""))), suite).suite
        config = resolve(merge(kept, {"suite": tasks}), sets=sets)
    if config.adapt.weights.method == "none":
        raise UsageError("These settings change no weights.", "Give --adapt rosa, or another that does.")
    return config


def not_taken(run: Run) -> list[str]:
    """The options of the run's policy that are not taken from it, as it may be a stranger's."""
    return _model_options(run)[1]


def _model_options(run: Run) -> tuple[dict[str, Any], list[str]]:
    model = run.config.get("model")
    return safe_options(model if isinstance(model, dict) else {}, {}, MODEL_WORDS)


def rescore(target: Selection, config: RunConfig, *, propose: bool = True) -> list[Rescored]:
    """Learn again from the failed attempts that ``target`` means, session by session.

    Args:
        propose: Also ask what the policy would now do, which costs as much as acting did.

    Raises:
        UsageError, PolicyError, SetupError: the policy is unavailable, or cannot score; nothing there to learn from.
    """
    tasks = {task.id: task for task in plan(config)}
    done: list[Rescored] = []
    with load_policy_of(config) as policy:
        for folder in target.sessions():
            attempts = [read_attempt(path) for path in attempt_folders(folder)]
            wanted = [a for a in attempts if target.attempt is None or a.number <= target.attempt]
            found = _session(folder, wanted, tasks, policy, config, propose)
            done += [r for r in found if target.attempt in (None, r.attempt)]
    if not done:
        raise UsageError("There is no failed attempt to learn from.", "Solved attempts change no weights.")
    return done


def _session(
    folder: Path, attempts: Sequence[Attempt], tasks: dict[str, TaskSpec], policy: Policy, config: RunConfig, propose: bool
) -> list[Rescored]:
    name, failed = folder.name, [a for a in attempts if a.result is not None and a.result.reward == -1]
    if not failed:
        return []
    if (given := read_given(folder)) is not None and given.theta_1.get("digest"):
        reason = "It began with weights learned in earlier sessions (--experience), which are not kept with the run."
        return [Rescored(name, attempt.number, error=reason) for attempt in failed]
    task = tasks.get(failed[0].begin.get("task", ""))
    if task is None:
        return [Rescored(name, failed[0].number, error="Its task is not one of this run's settings.")]
    theta = policy.open(task, seed=derive_seed(config.seed, task.id), adapt=config.adapt.weights)
    try:
        return [_attempt(name, attempt, attempts, theta, config, propose) for attempt in failed]
    finally:
        theta.close()


def _attempt(
    name: str, attempt: Attempt, attempts: Sequence[Attempt], theta: PolicySession, config: RunConfig, propose: bool
) -> Rescored:
    """One of the session's ``attempts``, learned from if the schedule says so (:meth:`agentlab.run.session.Session._learn`)."""
    recorded = [number(step.get("logprob")) for step in attempt.steps]
    _, learns = config.adapt.axes(attempt.number)
    try:
        steps = _steps(attempt)
        earlier = _history(attempt, attempts) if config.history == "conversation" else ()
        before = _relive(theta, attempt, steps, earlier)
        update = theta.adapt(_credit(attempt, config), **config.adapt.told(attempt.guidance_after)) if learns else None
        after = _relive(theta, attempt, steps, earlier) if learns else []
        proposals = _proposals(attempt, theta.propose()) if propose else []
    except (StoreError, AdaptationError) as error:
        return Rescored(name, attempt.number, recorded, error=error.message, learns=learns)
    finally:
        theta.discard()
    if update is None:
        return Rescored(name, attempt.number, recorded, before, after, proposals=proposals, learns=learns)
    numbers = {"method": update.method, "accepted": update.accepted, **update.numbers}
    replies = [dataclasses.asdict(reply) for reply in update.replies]
    return Rescored(name, attempt.number, recorded, before, after, numbers, replies, proposals)


def require_some(done: Sequence[Rescored]) -> None:
    """Raises AdaptationError if attempts were to be learned from, and none of them could be."""
    errors = [r.error for r in done if r.learns and r.error]
    if errors and len(errors) == sum(r.learns for r in done):
        raise AdaptationError(f"Of {len(errors)} attempts none could be learned from again: {errors[0]}")


def _history(attempt: Attempt, attempts: Sequence[Attempt]) -> tuple[PastAttempt, ...]:
    """The conversation that the attempt went on with.

    Raises:
        StoreError: an earlier attempt cannot be read.
    """
    return tuple(past(load_trace(one.folder)) for one in attempts if one.number < attempt.number)


def _steps(attempt: Attempt) -> list[tuple[Observation, str]]:
    return [(read_observation(attempt.folder, step), text(step.get("text"))) for step in attempt.steps]


def _relive(
    theta: PolicySession, attempt: Attempt, steps: Sequence[tuple[Observation, str]], earlier: Sequence[PastAttempt]
) -> list[float]:
    begin, shown = attempt.begin, attempt.begin.get("examples")
    if earlier:
        theta.converse(earlier)
    pairs = [pair for pair in shown if isinstance(pair, list) and len(pair) == 2] if isinstance(shown, list) else []
    theta.show([(text(question), text(reply)) for question, reply in pairs])
    theta.begin(text(begin.get("instruction")), guidance=text(begin.get("guidance")), attempt=attempt.number)
    return theta.relive(steps, [token_ids(step) for step in attempt.steps])


def _proposals(attempt: Attempt, found: Sequence[Decision]) -> list[dict[str, Any]]:
    """What was done at each step, and what would be."""
    lines = []
    for step, decision in zip(attempt_data(attempt)["steps"], found, strict=True):
        actions = [act.to_json(action) for action in decision.actions]
        line = {"step": step["index"], "recorded": step["action_text"], "now": decision.action_text or decision.text}
        lines.append(line | {"same": actions == step["actions"], "text": decision.text, "actions": actions})
    return lines


def _credit(attempt: Attempt, config: RunConfig) -> Sequence[float]:
    """The credit that the run gave the steps; −1 each where it gave none."""
    judgement, count = attempt.result.judge if attempt.result is not None else None, len(attempt.steps)
    said = credit_of(judgement, count, alone=config.judged, graded=config.adapt.words.credit == "judge")
    if said is not None:
        return said
    reflection = (attempt.words or {}).get("reflection")
    credit = reflection.get("credit") if isinstance(reflection, dict) else None
    fits = isinstance(credit, list) and len(credit) == count and all(isinstance(r, int | float) for r in credit)
    return [float(r) for r in credit] if fits and credit is not None else [-1.0] * count


# -- what came of it ---------------------------------------------------------------------------------------------------------------
def sections(done: Sequence[Rescored]) -> list[Section]:
    """A line per attempt."""
    rows = []
    for r in done:
        update = r.update or {}
        cells = [f"{update[n]:.4g}" if isinstance(update.get(n), int | float) else "–" for n in NUMBERS]
        change = " → ".join(f"{sum(logs):.3f}" for logs in (r.before, r.after) if logs) or "–"
        scheduled = "" if r.learns else "none at this attempt (adapt.switch_at)"
        state = r.error or scheduled or ("accepted" if update.get("accepted") else str(update.get("reason", "none")))
        known = [p for p in r.recorded if isinstance(p, int | float)]
        then = f"{sum(known):.3f}" if known and len(known) == len(r.recorded) else "–"
        rows.append((f"{r.session}/{r.attempt}", state, *cells, then, change))
    note = (
        "log p: of all replies of the attempt, as recorded, and as scored here before and after the update.  Under the run's own "
        "adaptation the first two agree.  (Runs of earlier versions have no token ids: their texts are tokenized again.)"
    )
    return [Section("Updates", ("attempt", "update", *NUMBERS, "log p recorded", "log p"), rows, note), _would_do(done)]


def _would_do(done: Sequence[Rescored]) -> Section:
    """The steps at which the policy would now do something else."""
    asked = [(r, line) for r in done for line in r.proposals]
    rows = [(f"{r.session}/{r.attempt}", str(line["step"]), line["recorded"], line["now"]) for r, line in asked if not line["same"]]
    note = (
        f"At {len(rows)} of {len(asked)} steps the policy would now, after the update, greedily, do something else than was done "
        "(which may have been drawn at random), everything before that step being as it was."
    )
    return Section("What it would now do", ("attempt", "step", "recorded", "now"), rows, note)


def write(folder: Path, title: str, done: Sequence[Rescored]) -> None:
    """Write ``rescore.md``, ``rescore.html`` and ``rescore.json`` into ``folder``.

    Raises:
        StoreError: it cannot be written.
    """
    write_pages(folder, "rescore", title, [s for s in sections(done) if s.rows], {})
    write_atomic(folder / "rescore.json", json.dumps({"attempts": [vars(r) for r in done]}, indent=2) + "\n")
