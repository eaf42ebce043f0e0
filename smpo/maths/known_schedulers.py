"""Which diffusers schedulers stand for a table of ᾱ. Pure Python, so that `smpo plan` checks them without torch."""

from collections.abc import Mapping
from typing import Any

__all__ = ["KNOWN_SCHEDULERS", "unusable_scheduler"]

KNOWN_SCHEDULERS = frozenset(
    f"{name}Scheduler"
    for name in (
        "DDIM", "DDIMInverse", "DDIMParallel", "DDPM", "DDPMParallel", "DEISMultistep", "DPMSolverMultistep",
        "DPMSolverSDE", "DPMSolverSinglestep", "EulerAncestralDiscrete", "EulerDiscrete", "HeunDiscrete",
        "KDPM2AncestralDiscrete", "KDPM2Discrete", "LCM", "LMSDiscrete", "PNDM", "SASolver", "TCD", "UniPCMultistep",
    )
)  # fmt: skip
"""Their tables follow from `beta_start`, `beta_end`, `beta_schedule` or `trained_betas`, as DDPM's."""


def unusable_scheduler(config: Mapping[str, Any]) -> str | None:
    """Why a scheduler's configuration gives no table of ᾱ that a network can have been trained with; None for one that
    does. Missing keys raise no objection."""
    name = str(config.get("_class_name", ""))
    if "FlowMatch" in name or config.get("use_flow_sigmas"):
        return f"`{name}` is for flow matching here, which has no table of ᾱ: smpo trains models of DDPM's schedules"
    if name and name not in KNOWN_SCHEDULERS:
        return f"`{name}` has no table of ᾱ that smpo knows; DDIM, DDPM, PNDM, Euler and DPM-Solver schedulers have"
    if config.get("rescale_betas_zero_snr") and config.get("prediction_type", "epsilon") == "epsilon":
        return (
            "a schedule that ends in pure noise (zero terminal SNR) needs a network that predicts velocities: a "
            "predicted noise says nothing of the image there"
        )
    return None
