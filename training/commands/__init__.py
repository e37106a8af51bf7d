"""The commands of `python -m training`, one file each.

Each turns options into calls and results into words; none knows how anything is computed. Heavy
modules are loaded when a command runs, so that `--help` is there at once.
"""
