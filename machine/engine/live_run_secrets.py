"""The secrets of a driven run in its format, those a fork takes over, and the facts that cannot be opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from machine.config import RunManifest
from machine.engine.driver_protocols import Opening
from machine.errors import Code, MachineError, UsageError
from machine.ids import RESERVED_FACT_PREFIX
from machine.io.attempt_scope import stored_seal
from machine.kernel.history import History
from machine.secrets.both_formats import Format1Adapter, OfRun, RunSecrets
from machine.secrets.format_1.run_secrets import Format1RunSecrets
from machine.secrets.reserved_store_key import Reserved
from machine.secrets.store_key import StoreKeys, open_keys
from machine.stores.base import Store


def secrets_of(store: Store, run_id: str, manifest: RunManifest) -> OfRun:
    """Return the secrets of a live run, by the rules of its format.

    Raises `SecretKeyError` before the run does anything when its secrets could not be sealed later.
    """
    policy, reserved = manifest.run_config.secrets, Reserved(store.secret_key_file)
    if manifest.secret_format == 1:
        secrets = Format1Adapter(policy, store.secret_key())
        secrets.reserved = reserved
        return secrets
    keys = open_keys(store)
    keys.check()
    return RunSecrets(policy, run_id, keys, live=True, reserved=reserved)


def refuse_key_in(opening: Opening, secrets: OfRun) -> None:
    """Raise `UsageError` (`secret_reserved`) when the opening of a new run holds the key of the store."""
    texts = (text.encode("utf-8", "surrogatepass") for text in opening.info.values())
    if any(map(secrets.reserved.holds, (*texts, *(made.data for made in opening.payloads.items.values())))):
        raise UsageError(
            "the input or the configuration of the run holds the key that the secrets of the store are under",
            code=Code.SECRET_RESERVED,
            hint="nothing was written; it opens all that the store has sealed, so no run may hold it",
        )


@contextmanager
def inheriting(source: Store, run_id: str, store: Store, fork_id: str, history: History) -> Iterator[None]:
    """Let a fork open what its parent run has sealed, where that can be opened now.

    When the enclosed work is refused, there will be no fork, and nothing is left.
    """
    if history.sealed.payloads or history.sealed.requests or history.sealed.macs:
        open_keys(source).share(run_id, fork_id, open_keys(store))
    try:
        yield
    except MachineError:
        store.forget_data_key(fork_id)
        raise


def looks_through(secrets: OfRun) -> Format1RunSecrets | None:
    """Return the check of everything that is written, or None in a format that needs none."""
    return secrets if isinstance(secrets, Format1RunSecrets) else None


def recalled(history: History, secrets: OfRun, load: Callable[[str], bytes]) -> dict[str, str]:
    """Load the secrets that a run has sealed so far; return the seals that cannot be opened, by the keys of facts.

    Raises `SecretKeyError` when the key of the store is missing or another one, which the user can correct.
    """
    if isinstance(secrets, Format1RunSecrets):
        return {}
    keys = secrets.keys
    lost: dict[str, str] = {}
    if not (history.sealed.payloads or history.sealed.requests):
        return lost
    for key, fact in history.facts.items():
        for seal_id, asked in history.sealed.seals_of(key) if key not in history.sealed.lost else ():
            opened = secrets.recall(stored_seal(load, seal_id), fact, asked=asked)
            if isinstance(keys, StoreKeys) and keys.problem is not None:
                raise keys.problem
            if not (opened or asked):
                lost[key] = seal_id
    return lost


def wanted(history: History, lost: Mapping[str, str]) -> frozenset[str]:
    """Return those of some seals, by the keys of their facts, that a run may still need."""
    return frozenset(
        seal_id
        for key, seal_id in lost.items()
        if history.sealed.payloads.get(key) == seal_id
        and key not in history.sealed.lost
        and (
            not key.startswith(RESERVED_FACT_PREFIX)
            or not history.states[history.facts[key].state_id].status.settled
        )
    )
