"""A Telegram that lives on your own machine: Bot API emulator, people to write to it, web chat.

`Sandbox` serves python-telegram-bot unmodified over real HTTP; `Person` is one of its users. It
knows nothing about faces or about the bot that talks to it, writes nothing to disk, and is not
meant to be reachable from other machines.
"""

from bot.sandbox.client import Person
from bot.sandbox.faults import Fault, FaultKind
from bot.sandbox.rates import Rates
from bot.sandbox.server import Sandbox
from bot.sandbox.updates import Lifetimes
from bot.sandbox.webhook import WebhookRules

__all__ = ["Fault", "FaultKind", "Lifetimes", "Person", "Rates", "Sandbox", "WebhookRules"]
