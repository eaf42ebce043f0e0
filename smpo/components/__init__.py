"""Built-in components: declarations, each a frozen set of documented fields and one call downwards.

Importing this package registers them: every file below is imported, so a new component is a new file and nothing else.
It is smpo's own entry point, the same door that plug-ins use. Nothing here imports torch, diffusers or transformers at
module level, so that `smpo plan` stays quick.
"""

from importlib import import_module
from pkgutil import walk_packages

for _module in walk_packages(__path__, f"{__name__}."):
    import_module(_module.name)
