"""Passwords, tokens and keys in addresses: found, and masked wherever a text is shown or stored."""

from __future__ import annotations

import re

__all__ = ["has_secret", "masked"]

_NAME = r"[\w.-]*(?:token|secret|password|passwd|passwort|pwd|api[-_]?key|access[-_]?key|signature|credential)[\w.-]*"
_SECRETS = re.compile(
    rf"""(?ix)
    ://[^/\s:?\#]*:([^/\s?\#]+)@       # scheme://user:PASSWORD@host
    | \bhttps?://([^/\s:?\#]+)@        # https://TOKEN@host
    | [?&;]{_NAME}=([^&\s\#;'"]+)      # ?password=PASSWORD
    | \b(hf_[A-Za-z0-9]{{16,}})        # a token of the Hugging Face hub
    """
)
_USER = re.compile(r"://[^/\s?#]+@")


def has_secret(text: str) -> bool:
    """Whether an address in the text holds a password, a token or a key."""
    return _SECRETS.search(text) is not None


def masked(text: str, *, address: str = "", keep_length: bool = False) -> str:
    """The text without the users and passwords of addresses in it, and with `***` for other secrets.

    `address`: an address whose secrets are masked wherever they stand, as in a driver's message. `keep_length`: one `*`
    for each character of a secret, and nothing else changes.
    """
    for found in _SECRETS.finditer(address):
        text = text.replace(found[found.lastindex or 0], "***")
    if not keep_length:
        text = _USER.sub("://", text)

    def mask(found: re.Match[str]) -> str:
        start, end = (place - found.start() for place in found.span(found.lastindex or 0))
        return found[0][:start] + ("*" * (end - start) if keep_length else "***") + found[0][end:]

    return _SECRETS.sub(mask, text)
