"""A plug-in for smpo. Importing it registers its components."""

from smpo_warmth.objective import FocalDPO as FocalDPO
from smpo_warmth.reward import Warmth as Warmth
from smpo_warmth.smoothing import DeadZone as DeadZone
