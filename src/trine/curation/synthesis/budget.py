"""What a run may spend, in tokens or in money."""

from __future__ import annotations

import math
from dataclasses import dataclass
from threading import Condition

from trine.curation.llm import Reply
from trine.errors import UsageError


class BudgetReached(Exception):
    """The next call might go beyond what may be spent."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Of a million tokens, in whatever currency."""

    input: float = 0.0
    output: float = 0.0

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """Of that many tokens."""
        return (self.input * input_tokens + self.output * output_tokens) / 1e6


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of everything in one folder, earlier runs included; None is no limit."""

    max_tokens: int | None = None
    """In and out together."""
    max_cost: float | None = None
    prices: Prices = Prices()

    def __post_init__(self) -> None:
        """Refuse what cannot be kept."""
        if min(self.prices.input, self.prices.output) < 0 or not math.isfinite(self.prices.cost(1, 1)):
            raise UsageError(
                f"the prices are {self.prices.input} and {self.prices.output} for a million tokens; none may be below 0"
            )
        if self.max_cost is not None and not self.prices.cost(1, 1):
            raise UsageError("a limit of the cost needs the prices for a million tokens: --price-in and --price-out")
        for name in ("max_tokens", "max_cost"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name} is {value}; it must be above 0")

    def holds(self, input_tokens: int, output_tokens: int) -> bool:
        """Whether so much may be spent in all."""
        if self.max_tokens is not None and input_tokens + output_tokens > self.max_tokens:
            return False
        return self.max_cost is None or self.prices.cost(input_tokens, output_tokens) <= self.max_cost


class Account:
    """What is spent and what is set aside for calls in flight; safe from several threads.

    A call sets aside its prompt as estimated and the longest answer it may get, so that calls in flight cannot pass the
    limit together; only an endpoint that counts more tokens of a prompt than were estimated can.
    """

    def __init__(self, budget: Budget, *, spent: tuple[int, int]) -> None:
        self.budget = budget
        self.input_tokens, self.output_tokens = spent
        self._held_in = self._held_out = 0
        self._changed = Condition()

    @property
    def cost(self) -> float:
        """Of what is spent."""
        return self.budget.prices.cost(self.input_tokens, self.output_tokens)

    def reserve(self, input_tokens: int, output_tokens: int) -> None:
        """Set tokens aside; waits for calls in flight where they may leave enough.

        Raises:
            BudgetReached: they cannot.
        """
        with self._changed:
            while not self.budget.holds(
                self.input_tokens + self._held_in + input_tokens, self.output_tokens + self._held_out + output_tokens
            ):
                alone = self.input_tokens + input_tokens, self.output_tokens + output_tokens
                if not (self._held_in or self._held_out) or not self.budget.holds(*alone):
                    raise BudgetReached
                self._changed.wait()
            self._held_in += input_tokens
            self._held_out += output_tokens

    def settle(self, input_tokens: int, output_tokens: int, reply: Reply | None) -> None:
        """Give back what was set aside, and enter what the reply cost; None where there was none."""
        with self._changed:
            self._held_in -= input_tokens
            self._held_out -= output_tokens
            if reply is not None:
                self.input_tokens += reply.input_tokens
                self.output_tokens += reply.output_tokens
            self._changed.notify_all()
