"""Threads are set up before anything loads torch, as every command does."""

from engine import threads

threads.configure()
