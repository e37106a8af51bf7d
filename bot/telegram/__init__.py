"""The way to Telegram and back: updates, files, limits, replies. Knows nothing about faces."""
