"""The secrets of a run that is driven, by the rules of its format, and which of its facts cannot be opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from machine.config import RunManifest
from machine.errors import MachineError, StoreError
from machine.ids import RESERVED_FACT_PREFIX
from machine.kernel.history import History
from machine.secrets.handles.vault import Vault
from machine.secrets.knowing import OfRun
from machine.secrets.run_secrets import RunSecrets
from machine.secrets.store_key import open_keys
from machine.stores.base import Store

__all__ = ["inheriting", "looks_through", "lost_secrets", "secrets_of"]


def secrets_of(store: Store, run_id: str, manifest: RunManifest) -> OfRun:
    """Return what a live run knows of secrets, by the rules of its format.

    Raises `SecretKeyError` when what it will seal could not be sealed: before it does anything.
    """
    policy = manifest.run_config.secrets
    if manifest.secret_format == 1:
        return Vault(policy, store.secret_key())
    keys = open_keys(store)
    keys.check()
    return RunSecrets(policy, run_id, keys, live=True)


@contextmanager
def inheriting(source: Store, run_id: str, store: Store, fork_id: str, history: History) -> Iterator[None]:
    """Have a fork open what the run that it is made from has sealed, where that can be opened now.

    When what is done meanwhile is refused, there will be no fork, and nothing is left.
    """
    if history.sealed.payloads:
        if source is store:
            open_keys(store).share(run_id, fork_id)
        elif (data_key := open_keys(source).data_key(run_id)) is not None:
            open_keys(store).adopt(fork_id, data_key)
    try:
        yield
    except MachineError:
        store.forget_data_key(fork_id)
        raise


def looks_through(secrets: OfRun) -> Vault | None:
    """Return what looks through all that is written, None in the format in which nothing has to."""
    return secrets if isinstance(secrets, Vault) else None


def lost_secrets(history: History, secrets: OfRun, load: Callable[[str], bytes]) -> frozenset[str]:
    """Return the keys of the facts that a run may still ask for and whose true values cannot be opened."""
    if isinstance(secrets, Vault) or not history.sealed.payloads:
        return frozenset()
    wanted = [
        history.facts[key]
        for key in history.sealed.payloads
        if key not in history.sealed.lost
        and (
            not key.startswith(RESERVED_FACT_PREFIX)
            or not history.states[history.facts[key].state_id].status.settled
        )
    ]
    lost: list[str] = []
    for fact in wanted:
        try:
            sealed = secrets.opens(load(history.sealed.payloads[fact.key]), fact)
        except StoreError:
            sealed = None
        if sealed is None:
            lost.append(fact.key)
    return frozenset(lost)
