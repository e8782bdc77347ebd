"""Which steps of a training are looked at closely, so that it costs little and misses little."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Look = Literal["close", "counting", "light"]

FIRST = 12                # so many steps are looked at closely: most faults show at once
EVERY = 50                # then one in so many,
YOUNG, SOON = 100, 25     # and twice as often until the 100th
LEAD = 8                  # so many steps before a close look, backward passes are counted
EARLY = 400               # from here on only if it takes no more than a share of the time
SHARE = 0.01
RARE = 0.005              # the same for compiled steps, which are looked at by running their Python
ALERTS, ALERT = 48, 6     # when something happens: so many steps at once, and in all


@dataclass
class Plan:
    """Asked at the beginning of each step how closely to look.

    every    after the first steps, one in so many; until the 100th, one in `soon`
    wake     the number of the step at which the answer may change: no need to ask before
    """

    every: int
    first: int = FIRST
    soon: int = SOON
    wake: int = 0
    due: int = 0             # the next step whose turn it is
    alert: int = 0           # so many of the next steps are looked at whatever the plan
    left: int = ALERTS
    looked: float = 0.0      # when the last close look ended, and what it took
    cost: float = 0.0
    now: Look = "close"

    def look(self, count: int, moment: float, compiled: bool = False) -> Look:
        """How step number `count`, which begins at this moment, is looked at."""
        self.now = self._look(count, moment - self.looked, compiled)
        return self.now

    def _look(self, count: int, since: float, compiled: bool) -> Look:
        dear = since <= self.cost / (RARE if compiled else SHARE)
        self.wake = 0
        if self.alert > 0:
            self.alert -= 1
            return "close"
        if compiled:
            return "counting" if dear else "close"
        if count < self.first or (count == self.due and self.now == "counting"):
            return "close"
        if count > self.due or self.now != "counting":
            every = min(self.every, self.soon) if count <= YOUNG else self.every
            self.due = -(-count // every) * every
            if count >= EARLY and dear:
                self.due += self.every            # not its turn yet
        if count >= self.due - LEAD:
            self.wake = self.due
            return "close" if count == self.due else "counting"
        self.wake = self.due - LEAD
        return "light"

    def rouse(self) -> bool:
        """Something happened: the next steps are looked at closely, if there is still time."""
        if self.left <= 0:
            return False
        more = min(ALERT, self.left)
        self.left -= more
        self.alert = max(self.alert, more)
        return True
