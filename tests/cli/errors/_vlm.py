"""Rewards whose packages nobody has: what a plug-in of one's own may look like on another machine."""

from typing import ClassVar, Literal

from smpo.api import Reward, register


@register
class Vlm(Reward):
    """A vision-language model asked which picture fits better."""

    use: Literal["vlm"] = "vlm"
    requires: ClassVar[tuple[str, ...]] = ("qwen_vl_utils_that_nobody_has", "flash_attn_that_nobody_has")

    def load(self, runtime):
        raise AssertionError("nothing is loaded where packages are missing")


@register
class VlmExtra(Vlm):
    """The same, with its packages in one of smpo's optional groups."""

    use: Literal["vlm-extra"] = "vlm-extra"
    extra: ClassVar[str | None] = "dashboard"
