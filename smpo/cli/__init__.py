"""The command line: words in, words out. Work is done in `smpo.app`; nothing heavy is imported to print help."""
