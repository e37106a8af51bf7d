"""The Telegram bot: photos and words in, cards and words out.

Knows Telegram and people; sees no tensor. What it knows of faces it asks the engine.
"""
