"""Misspelt names and wrong arguments in calls of libraries, none of which may pass. Nothing here is executed.

mypy reports a `type: ignore` that silences nothing, so `nox -s types` fails when mypy no longer checks a library.
`tests/test_names_exist.py` finds the same names without mypy.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import accelerate.utils
    import peft
    import torch
    import torch.distributed
    import torch.nn.functional as F
    import transformers
    from diffusers.models.resnet import ResnetBlok2D  # type: ignore[attr-defined]
    from torch.distributed.fsdp import fully_shared  # type: ignore[attr-defined]

    torch.cuda.getdevice_name()  # type: ignore[attr-defined]
    torch.cuda.max_memory_alocated()  # type: ignore[attr-defined]
    torch.cuda.Event(enable_timing=True).elapsed(None)  # type: ignore[attr-defined]
    torch.cuda.get_device_name(0, 1)  # type: ignore[call-arg]
    torch.backends.mps.is_availible()  # type: ignore[attr-defined]
    torch.backends.cudnn.allow_tf23 = False  # type: ignore[attr-defined]
    torch.distributed.is_initialised()  # type: ignore[attr-defined]
    torch.amp.GradScalar("cuda")  # type: ignore[attr-defined]
    torch.optim.AdamV([])  # type: ignore[attr-defined]
    F.logsigmiod(torch.zeros(1))  # type: ignore[attr-defined]
    torch.zeros(1).detatch()  # type: ignore[attr-defined]

    accelerate.utils.gather_objects([])  # type: ignore[attr-defined]
    ResnetBlok2D()
    fully_shared(torch.nn.Linear(1, 1))
    peft.LoraConfig(ranks=4)  # type: ignore[call-arg]
    transformers.CLIPTokeniser()  # type: ignore[attr-defined]
