"""The face login's conversations and its judgement; what is kept is `bot.store`'s."""
