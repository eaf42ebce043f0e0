"""From the bytes of a picture to what a model sees of it.

    decode      bytes -> upright RGB picture, or `BrokenImage` with a reason
    place       picture -> `[3, H, W]`: one rule for resizing, cropping and mirroring
    identity    content ids

Data, models and rewards all go through these, so that one picture is one tensor everywhere.
"""

from smpo.imaging.decode import BrokenImage, decode
from smpo.imaging.identity import content_id
from smpo.imaging.place import Placed, in_range, place

__all__ = ["BrokenImage", "Placed", "content_id", "decode", "in_range", "place"]
