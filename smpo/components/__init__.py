"""Built-in components: declarations, each a frozen set of documented fields and one call downwards.

Importing this package registers them; it is smpo's own entry point, the same door that plug-ins use. Nothing here
imports torch, diffusers or transformers at module level, so that `smpo plan` stays quick.
"""

from smpo.components import adapters as adapters
from smpo.components import datasets as datasets
from smpo.components import inversions as inversions
from smpo.components import models as models
from smpo.components import objectives as objectives
from smpo.components import optimisers as optimisers
from smpo.components import prompts as prompts
from smpo.components import pruners as pruners
from smpo.components import rewards as rewards
from smpo.components import samplers as samplers
from smpo.components import smoothings as smoothings
