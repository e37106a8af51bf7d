"""A Telegram that lives on your own machine: Bot API emulator, people to write to it, web chat.

`Sandbox` serves python-telegram-bot unmodified over real HTTP; `Person` is one of its users. It
knows nothing about faces or about the bot that talks to it, writes nothing to disk, and is not
meant to be reachable from other machines.
"""

from bot.sandbox.client import Person
from bot.sandbox.faults import Fault, FaultKind
from bot.sandbox.server import Sandbox

__all__ = ["Fault", "FaultKind", "Person", "Sandbox"]
