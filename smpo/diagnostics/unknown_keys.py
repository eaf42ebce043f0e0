"""Unknown keys: what was probably meant, and where it belongs.

In order: a dotted path written as a key; a colon without its space; a word of other frameworks (`also_called` of the
model that is checked); a setting of another component of this slot; a setting of another section; a slip of the
finger; and when nothing comes to mind, what there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from smpo.diagnostics.locate import Locator, Place, shown_at
from smpo.diagnostics.phrases import listed, suggest
from smpo.spec.problems import Note, Problem, nearest, quoted
from smpo.spec.tree import dotted, find

__all__ = ["unknown_key"]

LONG = 260
"""Characters of a list of settings that still help."""


def unknown_key(place: Place, locator: Locator, also: Iterable[str] = ()) -> Problem:
    """The problem about a key that isn't in its model. `also` names keys of the document beside the model's."""
    name = str(place.path[-1])
    _, key, _ = find(locator.root, place.path)
    owner = locator.owner_of(place.owner_path)
    fields = [info.alias or field for field, info in place.owner.model_fields.items()]
    known = [one for one in (*fields, *(also if not place.owner_path else ())) if one != "use"]
    notes: tuple[Note, ...] = ()
    _, _, section = find(locator.root, place.owner_path)
    chosen = shown_at(section, key)
    if "use" in section.entries and chosen.source is not key.source:
        notes = (Note(f"{owner} was chosen here", chosen),)
    label = _meant(name, place, locator, known) or suggest(name, known, what="settings")
    line = ", ".join(f"`{one}`" for one in known)
    help = f"{owner} has {line}" if known and not label and len(line) <= LONG else None
    message = f"{quoted(name)} is not a setting of {owner}"
    return Problem(message, key, dotted(place.path), label=label, notes=notes, help=help)


def _meant(name: str, place: Place, locator: Locator, known: list[str]) -> str:
    """The label, for mistakes other than a typing error."""
    settings = list(locator.settings())
    if name in settings and "." in name:
        first, rest = name.split(".", 1)
        return f"write `{first}: {{{rest}: …}}`; dots are for --set"
    word, colon, value = name.partition(":")
    if colon and word in known:
        return f"write `{word}: {value}`, with a space" if value else "a space is missing after the colon"
    here = dotted(place.owner_path)
    if told := _translated(name, here, locator):
        return told
    others = [one for one in locator.siblings(place.owner_path) if name in one.model_fields and name != "use"]
    if others and not nearest(name, known):
        kind = getattr(others[0], "kind", "")
        names = [str(one.model_fields["use"].default) for one in others]
        if len(names) > 3:
            return f"it is a setting of `{names[0]}`, `{names[1]}` and {len(names) - 2} others"
        return f"it is a setting of {kind} {listed(names, last='and')}"
    elsewhere = [path for path in settings if path.split(".")[-1] == name and path != f"{here}.{name}"]
    return f"did you mean {listed(elsewhere)}?" if 0 < len(elsewhere) <= 4 else ""


def _translated(name: str, here: str, locator: Locator) -> str:
    """What a word of other frameworks is called here, if the model knows it; of a setting that was removed, why."""
    words: Mapping[str, str] = getattr(locator.model, "also_called", {})
    meant = words.get(f"{here}.{name}") or words.get(name.lower().replace("-", "_"))
    if meant is None or meant == (f"{here}.{name}" if here else name):
        return ""
    if " " in meant:
        return meant
    section, _, last = meant.rpartition(".")
    return f"did you mean `{last if section == here else meant}`?"
