"""Programs that run under another Python: rewards whose packages can't live beside smpo's.

Nothing here is imported by smpo. Each file is run as a script by the interpreter that the machine's `scorers.toml`
names, with this folder on its path, so that it can say `from smpo_worker import serve`. They import nothing of smpo.
"""
