"""The command line, one file per command: a dataclass whose fields are the flags, and what runs it.

A command is a module with `Command` (its docstring is the help), `defaults(argv)` and `run(args)`; a family of commands
is a module with `main(argv)`. `main.py` lists both. Nothing here imports JAX before a command runs, so that help needs
none.
"""
