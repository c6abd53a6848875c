"""The command `trine`: one file per command, each a thin layer over what the library does.

Nothing here imports numpy, torch or another room before a command runs, so that `trine --help` answers at once.
"""
