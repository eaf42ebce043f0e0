"""Rewards: recipes for scorers. Learned ones smooth labels and judge; closed-form ones judge."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from smpo.components.locations import locate, missing
from smpo.components.reward_facts import blip_tflop, clip_tflop
from smpo.errors import MachineError, SpecError
from smpo.kinds import Reward, Runtime, Scorer
from smpo.registry.component import register
from smpo.spec.identity import Neutral

__all__ = [
    "MPS",
    "ClipPreference",
    "ImageReward",
    "LaionAesthetic",
    "Member",
    "Mix",
    "PlaneOnAxis",
    "PlaneRadius",
    "Process",
    "ShapesJudge",
]

Band = Annotated[tuple[float, float] | None, Neutral(None)]
"""Where published scores lie. It changes no score; most of them outside is worth a warning."""


class _Learned(Reward):
    """What rewards with published weights have in common."""

    band: Band = None
    """Lowest and highest score that is usual; smpo warns when most scores of a run lie outside. Null: no warning."""

    @model_validator(mode="after")
    def _band_is_one(self) -> _Learned:
        if self.band is not None and self.band[0] >= self.band[1]:
            raise SpecError("band", f"{self.band[0]:g} to {self.band[1]:g} is no range")
        return self

    def _watched(self, scorer: Scorer) -> Scorer:
        from smpo.rewards.bands import banded

        return banded(scorer, self.band, self.use)


@register
class ClipPreference(_Learned):
    """A CLIP trained on preferences, as PickScore and HPSv2 are: cosine of image and prompt embeddings.

        score = cos(image, prompt),  times exp(logit_scale) when `scaled`

    Kirstain et al. 2023 (arXiv:2305.01569). SmPO's labels use the bare cosine; tables print the scaled score.
    """

    use: Literal["clip-preference"] = "clip-preference"
    version: ClassVar[int] = 1

    weights: str
    """Folder or hub id of a transformers CLIPModel, or of what `file` is in; `smpo:...` ships with smpo."""
    processor: str | None = None
    """Folder or hub id of tokenizer and image settings; null means beside the weights."""
    revision: str | None = None
    """Commit or tag on the hub; pin it."""
    scaled: bool = False
    """Multiply by the model's own temperature."""
    file: Annotated[str | None, Neutral(None)] = None
    """A checkpoint in open_clip's layout, as HPSv2's is; the architecture is then the processor's."""
    pictures: Annotated[Literal["processor", "openai", "whole"], Neutral("processor")] = "processor"
    """How pictures are laid out: as the processor says, as OpenAI's package does, or whole and padded, as HPSv2's."""
    antialias: Annotated[bool, Neutral(True)] = True
    """For `whole`: shrink tensors smoothly, as torchvision does since 0.17; false is how it was before."""

    def load(self, runtime: Runtime) -> Scorer:
        from smpo.rewards.clip_like import load_clip_scorer

        scorer = load_clip_scorer(
            locate(self.weights),
            processor=locate(self.processor) if self.processor else None,
            revision=self.revision,
            scaled=self.scaled,
            file=self.file,
            pictures=self.pictures,
            antialias=self.antialias,
            runtime=runtime,
        )
        return self._watched(scorer)

    def check(self) -> str | None:
        return _missing(self.weights, self.file) or _missing(self.processor)

    def tflop(self) -> float | None:
        return clip_tflop(self.processor or self.weights) or clip_tflop(self.weights)


@register
class ImageReward(_Learned):
    """ImageReward: a BLIP that reads prompt and picture together, trained on people's rankings.

        score = (linear head of the first token - 0.167) / 1.033,  the prompt cut at 35 tokens

    Xu et al. 2023 (arXiv:2304.05977).
    """

    use: Literal["image-reward"] = "image-reward"
    version: ClassVar[int] = 1

    weights: str
    """Folder or hub id with the checkpoint and `med_config.json`."""
    file: str = "ImageReward.pt"
    """The checkpoint in it; a safetensors file of the same names will do."""
    tokenizer: str = "google-bert/bert-base-uncased"
    """Folder or hub id of BERT's tokenizer."""
    revision: str | None = None
    """Commit or tag of the weights on the hub; pin it."""

    def load(self, runtime: Runtime) -> Scorer:
        from smpo.rewards.image_reward import load_image_reward

        scorer = load_image_reward(
            locate(self.weights),
            file=self.file,
            tokenizer=locate(self.tokenizer),
            revision=self.revision,
            runtime=runtime,
        )
        return self._watched(scorer)

    def check(self) -> str | None:
        return _missing(self.weights, self.file) or _missing(self.tokenizer)

    def tflop(self) -> float | None:
        return blip_tflop()


@register
class LaionAesthetic(_Learned):
    """LAION's aesthetic predictor: a linear head on CLIP's picture embedding. It never sees the prompt.

    A policy may please it with any pretty picture: judge with it, but don't train on it alone.
    """

    use: Literal["laion-aesthetic"] = "laion-aesthetic"
    version: ClassVar[int] = 1

    weights: str
    """Folder or hub id with the head."""
    file: str = "sac+logos+ava1-l14-linearMSE.pth"
    """The head in it."""
    clip: str = "openai/clip-vit-large-patch14"
    """Folder or hub id of the CLIP whose embeddings the head was trained on."""
    revision: str | None = None
    """Commit or tag of the head on the hub; pin it."""
    clip_revision: str | None = None
    """Commit or tag of the CLIP on the hub; pin it."""

    def load(self, runtime: Runtime) -> Scorer:
        from smpo.rewards.aesthetic import load_aesthetic_scorer

        scorer = load_aesthetic_scorer(
            locate(self.weights),
            file=self.file,
            clip=locate(self.clip),
            revision=self.revision,
            clip_revision=self.clip_revision,
            runtime=runtime,
        )
        return self._watched(scorer)

    def check(self) -> str | None:
        return _missing(self.weights, self.file) or _missing(self.clip)

    def tflop(self) -> float | None:
        return clip_tflop(self.clip, words=False)


@register
class MPS(_Learned):
    """MPS: a CLIP whose picture is read in the light of those words of the prompt that a condition asks for.

        score = exp(logit_scale) · cos(picture after cross-attention, prompt)

    Zhang et al. 2024 (arXiv:2405.14705).
    """

    use: Literal["mps"] = "mps"
    version: ClassVar[int] = 1

    weights: str
    """Folder or hub id with the checkpoint. The published `.pth` is a pickled module and has to be saved again."""
    file: str = "model.safetensors"
    """The checkpoint in it."""
    clip: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    """Folder or hub id of architecture, tokenizer and image settings; its weights aren't needed."""
    revision: str | None = None
    """Commit or tag of the checkpoint on the hub; pin it."""
    condition: str = (
        "light, color, clarity, tone, style, ambiance, artistry, shape, face, hair, hands, limbs, structure, "
        "instance, texture, quantity, attributes, position, number, location, word, things."
    )
    """What matters; the default is the published one for overall preference."""
    threshold: float = Field(0.3, ge=0, lt=1)
    """Prompt tokens at most so similar to the condition, relative to the most similar, are masked. 0.3 is what the
    published evaluation scripts use, 0.01 the published model's own `forward`."""

    def load(self, runtime: Runtime) -> Scorer:
        from smpo.rewards.mps import load_mps

        scorer = load_mps(
            locate(self.weights),
            file=self.file,
            clip=locate(self.clip),
            condition=self.condition,
            threshold=self.threshold,
            revision=self.revision,
            runtime=runtime,
        )
        return self._watched(scorer)

    def check(self) -> str | None:
        return _missing(self.weights, self.file) or _missing(self.clip)

    def tflop(self) -> float | None:
        return clip_tflop(self.clip)


@register
class Process(_Learned):
    """A reward in a process of its own, for packages that can't live beside smpo's (HPSv3, VLM judges, your own).

    A spec only names it. What the name stands for on this machine is in `~/.config/smpo/scorers.toml`, or the file that
    SMPO_SCORERS names: neither specs nor cards can say what is run.
    """

    use: Literal["process"] = "process"
    version: ClassVar[int] = 1

    scorer: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    """The name under which the machine knows the scorer."""
    settings: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    """Given to the worker when it loads: weights, revision, whatever changes a score."""

    def load(self, runtime: Runtime) -> Scorer:
        from smpo.rewards.process import load_process_scorer

        return self._watched(load_process_scorer(self.scorer, self.settings, runtime))

    def check(self) -> str | None:
        from smpo.rewards.machine import find_worker

        try:
            find_worker(self.scorer)
        except MachineError as error:
            return f"{error.message}: {error.help}" if error.help else error.message
        return None


def _member_reward(value: Any) -> Reward:
    """A card's or component's name, or a map with `use`, as the reward it stands for.

    A component has no slots, so what a slot does for a name is done here. Cards are those that every spec sees, rewards
    those of installed packages; local code of one spec is not known here.
    """
    from smpo.registry.cards import Cards, card_roots
    from smpo.registry.plugins import installed
    from smpo.spec.problems import SpecProblems
    from smpo.spec.tree import plain

    if isinstance(value, Reward):
        return value
    settings = {"use": value} if isinstance(value, str) else value
    if not isinstance(settings, dict) or not isinstance(settings.get("use"), str):
        raise SpecError("", "a member is the name of a reward, or a map with `use`")
    name, registry = settings["use"], installed()[0]
    cards = Cards(card_roots())
    try:
        card = cards.get("reward", name)
    except SpecProblems as error:
        raise SpecError("", f"card `{name}` is broken: {error}") from error
    if card is not None:
        settings = {**plain(card.settings), **settings, "use": card.use}
    component = registry.get("reward", settings["use"])
    if component is None or not issubclass(component, Reward):
        names = sorted({*cards.names("reward"), *registry.of("reward")})
        raise SpecError("", f"no reward is called `{name}`", help=f"there are {', '.join(names)}")
    try:
        return component.model_validate_json(json.dumps(settings), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise SpecError("", f"`{name}`: {where + ': ' if where else ''}{first['msg']}") from error


_NAMED = {
    "anyOf": [
        {"type": "string"},
        {"type": "object", "properties": {"use": {"type": "string"}}, "required": ["use"]},
    ]
}


class Member(BaseModel):
    """One reward of a mix, and what is usual for its scores."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    reward: Annotated[SerializeAsAny[Reward], BeforeValidator(_member_reward), WithJsonSchema(_NAMED)]
    """A card or component by name, or a map with `use` and settings."""
    weight: float = Field(1.0, gt=0)
    """How much it counts."""
    centre: float | None = None
    """The score of a usual picture; null takes 0 for `sum`, and the middle of the reward's band for `vote`."""
    scale: float = Field(1.0, gt=0)
    """For `sum`: differences of scores are divided by it."""
    knots: list[float] = Field(default_factory=list)
    """For `rank`: scores at equal steps of quantile over some population, lowest to highest, such as the minimum, the
    quartiles and the maximum. Empty takes the ends of the reward's band."""

    @property
    def band(self) -> tuple[float, float] | None:
        return self.reward.band if isinstance(self.reward, _Learned) else None


@register
class Mix(Reward):
    """Several rewards as one: a weighted sum, an average of ranks, or a vote.

        sum    Σ w (r - centre) / scale / Σ w
        rank   Σ w F(r) / Σ w,  F = share of the member's population that scores lower (`knots`)
        vote   Σ w [r > centre] / Σ w,  half a vote at the centre itself

    Ranks and votes are against a population that is fixed beforehand, because a score may not depend on what else is
    in the batch. docs/rewards.md says what they are for pairs.
    """

    use: Literal["mix"] = "mix"
    version: ClassVar[int] = 1

    how: Literal["sum", "rank", "vote"] = "sum"
    """How members' scores become one."""
    members: list[Member] = Field(min_length=1)
    """The rewards that are held; every one of them is in memory at once."""

    @model_validator(mode="after")
    def _populations(self) -> Mix:
        for index, member in enumerate(self.members):
            where = f"members.{index}"
            if self.how == "rank":
                knots = self._knots(member)
                if len(knots) < 2:
                    raise SpecError(
                        where,
                        f"to rank by `{member.reward.use}`, its usual scores must be known",
                        help="give `knots`, such as [lowest, median, highest] over your pairs",
                    )
                if any(low >= high for low, high in pairwise(knots)):
                    raise SpecError(f"{where}.knots", "knots must rise")
            if self.how == "vote" and member.centre is None and member.band is None:
                raise SpecError(
                    where,
                    f"for `{member.reward.use}` to vote, its usual score must be known",
                    help="give `centre`, such as the median over your pairs",
                )
        return self

    def load(self, runtime: Runtime) -> Scorer:
        from smpo.rewards.ensemble import EnsembleScorer, Population

        parts = []
        for member in self.members:
            middle = sum(member.band) / 2 if member.band and self.how == "vote" else 0.0
            centre = member.centre if member.centre is not None else middle
            knots = tuple(self._knots(member)) if self.how == "rank" else ()
            scorer = member.reward.load(runtime)
            parts.append((scorer, Population(member.weight, centre, member.scale, knots)))
        return EnsembleScorer(parts, self.how)

    def check(self) -> str | None:
        found = (member.reward.check() for member in self.members)
        return next((reason for reason in found if reason), None)

    def tflop(self) -> float | None:
        counted = [member.reward.tflop() for member in self.members]
        return None if None in counted else sum(filter(None, counted))

    def _knots(self, member: Member) -> list[float]:
        return member.knots or list(member.band or ())


def _missing(place: str | None, file: str | None = None) -> str | None:
    """Why a folder, hub id or file can't be opened here, in a sentence."""
    if place is None:
        return None
    if reason := missing(place):
        return reason
    folder = Path(locate(place))
    if file is not None and folder.is_dir() and not (folder / file).is_file():
        return f"the folder `{place}` has no {file}"
    return None


@register
class ShapesJudge(Reward):
    """The shapes world's independent judge: a formula on pixels (right object, right place, size, colour).

    It has never seen a label, so it can say whether a gain on the learned reward is real.
    """

    use: Literal["shapes-judge"] = "shapes-judge"
    version: ClassVar[int] = 1
    learned: ClassVar[bool] = False

    def load(self, runtime: Runtime) -> Scorer:
        from smpo.rewards.judges import ShapesJudgeScorer

        return ShapesJudgeScorer()


@register
class PlaneRadius(Reward):
    """The plane world's reward: how far a point lies out in its condition's direction."""

    use: Literal["plane-radius"] = "plane-radius"
    version: ClassVar[int] = 1
    learned: ClassVar[bool] = False

    scale: float = Field(1.0, gt=0)
    """Multiplies the score."""

    def load(self, runtime: Runtime) -> Scorer:
        from smpo.worlds.plane.scorers import RadialScorer

        return RadialScorer(scale=self.scale)


@register
class PlaneOnAxis(Reward):
    """Minus a point's distance from its condition's axis: falls when a policy gains reward by breaking things."""

    use: Literal["plane-on-axis"] = "plane-on-axis"
    version: ClassVar[int] = 1
    learned: ClassVar[bool] = False

    def load(self, runtime: Runtime) -> Scorer:
        from smpo.worlds.plane.scorers import OnAxisScorer

        return OnAxisScorer()
