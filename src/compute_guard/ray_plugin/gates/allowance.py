"""What one node may grant by itself: amounts that the head counts as held here, and answers it has given.

A lease that comes back is not given back to the head at once: what it held stays here for a moment, still
counted by the head as this node's, and the next lease of the same workload may take it. Quota cannot be
exceeded by that, because nothing is ever used here that the head has not already counted. A grant
needs, beside the amounts, an answer of the head's to the same question (job, caller, shape, runtime
environment) under the terms in force: an edited policy, quota or pool, a new minute, or an ended job are new
terms, and take everything back.

The head's word is good for `LAG_SECONDS` from when it was asked for. When it is away for longer, nothing is
granted here. Pure: the clock is handed in, and what is to be said is returned.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from compute_guard.ray_plugin.gates.grants import Grant, Grants

LAG_SECONDS = 0.25
"""For so long a node may go on under terms that the head has changed, should it not hear of the change."""
KEEP_SECONDS = 0.25
"""What was not needed for so long goes back to the head."""
REMEMBERED = 10_000

Question = Hashable
Answer = Mapping[str, Any]


@dataclass(slots=True)
class _Kept:
    """One workload's idle amounts; ``least`` is the least there was since `Allowance.trim` last came by."""

    idle: dict[str, int] = field(default_factory=dict)
    least: dict[str, int] = field(default_factory=dict)


class Allowance:
    """Idle amounts by workload, remembered answers, and what the head has yet to be told of both."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._open: set[str] = set()
        self._answers: dict[Question, Answer] = {}
        self._terms = ""
        self._good_until = 0.0
        self._trimmed_at = 0.0
        self._sent: dict[int, float] = {}
        self._number = 0
        self._granted: set[str] = set()
        self._returned: list[str] = []
        self._back: dict[str, dict[str, int]] = {}

    # --- what the head says

    def hear(self, terms: str, asked_at: float) -> None:
        """The terms in force, as the head knew them at ``asked_at`` or later; empty: none are."""
        self.change(terms)
        self._good_until = max(self._good_until, asked_at + LAG_SECONDS)

    def change(self, terms: str) -> None:
        """As `hear`, of which nobody knows how long it was under way."""
        if terms != self._terms:
            self._terms = terms
            self._revoke()

    def heard(self, number: int, terms: str) -> None:
        """The head's answer to report ``number``."""
        sent = self._sent.pop(number, None)
        if sent is not None:
            self.hear(terms, sent)

    def learn(self, question: Question, answer: Answer, asked_at: float) -> None:
        """Take an answer for further leases, where the head says that it stands under terms."""
        terms = answer.get("terms", "")
        if not terms:
            return
        self.hear(terms, asked_at)
        if answer["keep"]:
            self._open.add(answer["workload"])
        if len(self._answers) >= REMEMBERED:
            self._answers.clear()
        self._answers[question] = answer

    def recall(self, workload: str) -> None:
        """Give back what is idle of a workload, and keep nothing of it until a later answer allows it."""
        self._open.discard(workload)
        kept = self._kept.pop(workload, None)
        if kept is not None:
            self._give_back(workload, kept.idle)

    def _revoke(self) -> None:
        self._answers.clear()
        for workload in tuple(self._kept):
            self.recall(workload)
        self._open.clear()

    def forget(self, workload: str = "", job: str = "") -> None:
        """A workload, or one of its jobs, has ended."""
        over = [
            (question, answer["workload"])
            for question, answer in self._answers.items()
            if answer["workload"] == workload or answer["job"] == job
        ]
        for question, whose in over:
            del self._answers[question]
            self.recall(whose)
        self.recall(workload)

    def clear(self) -> None:
        """The connection is new: the head knows what `Grants` says, and of nothing else here."""
        self._kept, self._open, self._answers = {}, set(), {}
        self._granted, self._returned, self._back, self._sent = set(), [], {}, {}
        self._terms, self._good_until = "", 0.0

    # --- leases

    def grant(self, question: Question, lease: str) -> Answer | None:
        """The answer for ``lease``, its amounts taken from what is idle; None: the head is to be asked."""
        answer = self._answers.get(question)
        if answer is None or not self._terms or self._clock() >= self._good_until:
            return None
        workload, amounts = answer["workload"], answer["amounts"]
        kept = self._kept.get(workload)
        if kept is None:
            return None
        idle = kept.idle
        for name, amount in amounts.items():
            if idle.get(name, 0) < amount:
                return None
        for name, amount in amounts.items():
            idle[name] -= amount
            if idle[name] < kept.least.get(name, 0):
                kept.least[name] = idle[name]
        self._granted.add(lease)
        return answer

    def untold(self, lease: str) -> bool:
        """Whether ``lease`` was granted here and the next report will be the first that says so."""
        return lease in self._granted

    def keep(self, grant: Grant) -> bool:
        """Whether what ``grant`` held, which has just ended, stays here."""
        if grant.workload not in self._open or self._clock() >= self._good_until:
            return False
        kept = self._kept.setdefault(grant.workload, _Kept())
        for name, amount in grant.amounts.items():
            kept.idle[name] = kept.idle.get(name, 0) + amount
        if grant.lease in self._granted:
            self._granted.remove(grant.lease)
        else:
            self._returned.append(grant.lease)
        return True

    def ended(self, grant: Grant) -> bool:
        """As `keep`, of what is to go back to the head: whether the next report says it."""
        if grant.lease not in self._granted:
            return False
        self._granted.remove(grant.lease)
        self._give_back(grant.workload, grant.amounts)
        return True

    def _give_back(self, workload: str, amounts: Mapping[str, int]) -> None:
        back = self._back.setdefault(workload, {})
        for name, amount in amounts.items():
            back[name] = back.get(name, 0) + amount

    # --- reports

    @property
    def active(self) -> bool:
        """Whether a report is due: something is idle here, or untold."""
        return bool(self._kept or self._granted or self._returned or self._back)

    def trim(self) -> None:
        """Give back what nobody needed for `KEEP_SECONDS`."""
        now = self._clock()
        if now - self._trimmed_at < KEEP_SECONDS:
            return
        self._trimmed_at = now
        for workload, kept in tuple(self._kept.items()):
            spare = {name: amount for name, amount in kept.least.items() if amount}
            if spare:
                self._give_back(workload, spare)
            for name, amount in spare.items():
                kept.idle[name] -= amount
            kept.least = dict(kept.idle)
            if not any(kept.idle.values()):
                del self._kept[workload]

    def report(self, grants: Grants) -> Mapping[str, Any]:
        """What has changed since the last report; leases that came and went in between are not in it."""
        self._number += 1
        self._sent[self._number] = self._clock()
        said = {
            "op": "report",
            "number": self._number,
            "returned": self._returned,
            "granted": [grant.to_json() for grant in grants.all_of(self._granted)],
            "back": self._back,
        }
        self._granted, self._returned, self._back = set(), [], {}
        return said
