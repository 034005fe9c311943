"""What a job uses up and what it may: tokens and money, spent, under way and foreseen. Asks nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from data_builders.errors import RagFtError
from data_builders.servers import Call, Reply
from data_builders.servers.settings import BudgetSettings, EndpointSettings, TeacherSettings

# Bytes of a token in UTF-8, at least and mostly: so a Korean or Chinese letter, of three bytes, is about a token.
_CAUTIOUS, _USUAL = 3.0, 3.5


class BudgetSpentError(RagFtError):
    """The next call could go beyond the budget. Everything that was under way has been answered and kept."""


@dataclass(frozen=True)
class Tokens:
    """Tokens read and written."""

    prompt: int
    output: int


@dataclass
class Spending:
    """What one run has used and has under way. A job shares one over all that it asks."""

    budget: BudgetSettings = field(default_factory=BudgetSettings)
    input_price: float | None = None
    output_price: float | None = None
    calls: int = 0
    used: Tokens = Tokens(0, 0)
    held: Tokens = Tokens(0, 0)
    guessed: bool = False
    """A server did not count: its tokens are estimated."""
    over: bool = False
    _lock: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)
    """Jobs beside one another ask in threads of their own."""

    @classmethod
    def of(cls, settings: TeacherSettings) -> Spending:
        """Return the spending of a job.

        Raises:
            RagFtError: a limit in money without the prices to reckon it.
        """
        prices = (settings.input_price, settings.output_price)
        if settings.budget.money is not None and None in prices:
            raise RagFtError(
                f"endpoint.budget.money={settings.budget.money:g} cannot be kept without prices. Set "
                "endpoint.input_price and endpoint.output_price, or limit endpoint.budget.tokens instead."
            )
        return cls(settings.budget, *prices)

    @property
    def money(self) -> float | None:
        """What was used so far, in the currency of the prices; None without prices."""
        return self.cost(self.used)

    def cost(self, tokens: Tokens) -> float | None:
        """Return the price of so many tokens; None without prices."""
        return price(tokens, self.input_price, self.output_price)

    def hold(self, tokens: Tokens) -> bool:
        """Set aside what a request may take before it is sent; False while others under way leave no room for it.

        Raises:
            BudgetSpentError: with what is used it might be too much; from then on nothing is sent.
        """
        with self._lock:
            self.over = self.over or self._exceeded(_sum(self.used, tokens))
            if self.over:
                raise BudgetSpentError(self._told())
            held = _sum(self.held, tokens)
            if self._exceeded(_sum(self.used, held)):
                return False
            self.held = held
            return True

    def release(self, tokens: Tokens, used: Tokens) -> None:
        """Give back what was set aside, and note what the request took."""
        with self._lock:
            self.held = Tokens(self.held.prompt - tokens.prompt, self.held.output - tokens.output)
            self.used = _sum(self.used, used)

    def answered(self) -> None:
        """Count a call that came to its end."""
        with self._lock:
            self.calls += 1

    def used_by(self, reply: Reply, held: Tokens) -> Tokens:
        """Return what an answer took: as the server counted, else as its length lets one guess."""
        written = _bytes(reply.text or "") / _CAUTIOUS
        if None in (reply.prompt_tokens, reply.output_tokens):
            self.guessed = True
        return Tokens(
            held.prompt if reply.prompt_tokens is None else reply.prompt_tokens,
            round(written) if reply.output_tokens is None else reply.output_tokens,
        )

    def told(self) -> str:
        """Return what was used, in a few words."""
        about = "about " if self.guessed else ""
        cost = "" if self.money is None else f", {amount(self.money)} by the prices given"
        return f"{about}{self.used.prompt:,} tokens read and {self.used.output:,} written{cost}"

    def _exceeded(self, tokens: Tokens) -> bool:
        most, money = self.budget.tokens, self.budget.money
        too_many = most is not None and tokens.prompt + tokens.output > most
        return too_many or (money is not None and (self.cost(tokens) or 0.0) > money)

    def _told(self) -> str:
        most = [f"endpoint.budget.{name}={value:g}" for name, value in self.budget if value is not None]
        return (
            f"the next call might go beyond {' or '.join(most)}, which each run may use. This run had {self.calls:,} "
            f"calls answered ({self.told()}), and every answer is kept. Run the same command again to go on where it "
            "stopped, with the same limit anew, or raise the limit."
        )


def _sum(one: Tokens, other: Tokens) -> Tokens:
    return Tokens(one.prompt + other.prompt, one.output + other.output)


def price(tokens: Tokens, input_price: float | None, output_price: float | None) -> float | None:
    """Return what tokens cost at prices of a million each; None where one is missing."""
    if input_price is None or output_price is None:
        return None
    return (tokens.prompt * input_price + tokens.output * output_price) / 1e6


def amount(money: float) -> str:
    """Return an amount of money as people write it; small ones with the digits that count."""
    return f"{money:,.2f}" if money >= 1 else f"{money:.3g}"


def most_tokens(call: Call, longest: int) -> Tokens:
    """Return what a call may take, cautiously."""
    return Tokens(round(_sent(call) / _CAUTIOUS), longest)


def longest_answer(max_tokens: int, extra_body: Mapping[str, Any]) -> int:
    """Return the tokens that an answer may have: further fields win over `max_tokens`, and `n` asks for several."""
    named = [extra_body.get(name) for name in ("max_tokens", "max_completion_tokens")]
    longest = max((count for count in named if isinstance(count, int)), default=max_tokens)
    several = extra_body.get("n")
    return longest * max(1, several if isinstance(several, int) else 1)


def _sent(call: Call) -> int:
    return sum(_bytes(message["content"]) for message in call.messages)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


@dataclass(frozen=True)
class Estimate:
    """What calls would take.

    Attributes:
        output_tokens: at most, were every answer as long as it may be.
        money: at most, in the currency of the prices; None without prices.
        counted: prompt tokens were counted by a tokenizer; else they follow from the number of bytes.
    """

    calls: int
    prompt_tokens: int
    output_tokens: int
    money: float | None
    counted: bool

    def told(self) -> str:
        """Return it in one line."""
        about = "" if self.counted else "about "
        guess = "" if self.counted else f" (estimated: {_USUAL} bytes to a token)"
        cost = (
            "no prices given (endpoint.input_price, endpoint.output_price)"
            if self.money is None
            else f"{amount(self.money)} at most"
        )
        return (
            f"{self.calls:,} calls, {about}{self.prompt_tokens:,} prompt tokens{guess}, "
            f"at most {self.output_tokens:,} written: {cost}"
        )


def price_of(
    calls: Iterable[Call], settings: TeacherSettings, tokens_of: Callable[[str], int] | None = None
) -> Estimate:
    """Price calls without sending any: prompts as they are, answers as long as they may be, no try repeated.

    Args:
        calls: taken one at a time.
        settings: longest answer and prices.
        tokens_of: counts the tokens of a text; None estimates from bytes.
    """
    count = prompt = 0
    for call in calls:
        count += 1
        prompt += (
            sum(tokens_of(message["content"]) for message in call.messages)
            if tokens_of
            else round(_sent(call) / _USUAL)
        )
    tokens = Tokens(prompt, count * longest_answer(settings.max_tokens, settings.extra_body))
    money = price(tokens, *_prices(settings))
    return Estimate(count, tokens.prompt, tokens.output, money, counted=tokens_of is not None)


def _prices(settings: EndpointSettings) -> tuple[float | None, float | None]:
    return settings.input_price, settings.output_price
