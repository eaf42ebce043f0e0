"""One function per command: its parameters are the options, its docstring is the help.

Modules here import nothing but typer, so that `smpo --help` prints at once; each function imports what it needs.
"""
