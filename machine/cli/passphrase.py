"""Reading the passphrase or key of a bundle's secrets: from a file, a variable, or a prompt."""

from __future__ import annotations

import getpass
import os
import sys

from machine.cli.output import on_terminal
from machine.errors import UsageError
from machine.secrets.bundle_key import PASSPHRASE_VARIABLE, BundleKey
from machine.secrets.store_key import key_given


def key_to_lock(recipient_key: str | None) -> BundleKey:
    """Return the key or passphrase for a new bundle; if none was given, ask twice on the terminal."""
    if (key := given(recipient_key)) is not None:
        return key
    if not on_terminal(sys.stdin):
        raise UsageError(
            "the secrets of a bundle are locked with a passphrase or a key, and there is none",
            hint=f"set {PASSPHRASE_VARIABLE}, or give --recipient-key FILE",
        )
    key = asked_for("Passphrase for the secrets of the bundle: ")
    if asked_for("The same again: ") != key:
        raise UsageError("the passphrases differ", hint="nothing was written")
    return key


def given(recipient_key: str | None) -> BundleKey | None:
    """Return the given key or passphrase, or None; a key takes precedence."""
    if recipient_key is not None:
        return BundleKey(recipient=key_given(recipient_key))
    text = os.environ.get(PASSPHRASE_VARIABLE)
    return BundleKey(passphrase=text) if text else None


def asked_for(prompt: str) -> BundleKey:
    """Ask for a passphrase on the terminal, without echo, and return it."""
    try:
        return BundleKey(passphrase=getpass.getpass(prompt))
    except EOFError:
        raise UsageError("no passphrase was typed", hint="nothing was written") from None
