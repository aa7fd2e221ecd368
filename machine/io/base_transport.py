"""Former home of `machine.BaseTransport`, whose old import still works for one release, with a warning."""

from __future__ import annotations

from machine.lazy_loading import lazy_names

__getattr__, __dir__ = lazy_names(__name__, {}, {"BaseTransport": "machine.io.transport.BaseTransport"})
