"""Cacao: state on the server, React in the browser, structured concurrency throughout.

The names are loaded when they are first used: pytest imports this package in every project that
has it installed, for its plugin's sake, and most of those runs never need the rest.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cacao import clock
    from cacao.app import App
    from cacao.cookies import SignedCookie
    from cacao.errors import (
        CacaoError,
        ConnectionClosed,
        CycleError,
        DeclarationError,
        EffectLoopError,
        HostingError,
        MessageError,
        NoSessionError,
        NotSerializableError,
        ReactiveError,
        SessionEndedError,
        StorageError,
        UnauthorizedError,
        WriteInComputedError,
    )
    from cacao.events import EventDescription
    from cacao.hosting import from_asyncio
    from cacao.limits import Limits
    from cacao.peer import Peer
    from cacao.reactive import Computed, Effect, Signal, batch, current_run, untracked
    from cacao.registry import Registry
    from cacao.reports import ErrorReport
    from cacao.resource import Resource
    from cacao.session import Session
    from cacao.streams import ListSignal, TextSignal
    from cacao.threads import ThreadSession

__version__ = "0.1.0"

__all__ = [
    "App",
    "CacaoError",
    "Computed",
    "ConnectionClosed",
    "CycleError",
    "DeclarationError",
    "Effect",
    "EffectLoopError",
    "ErrorReport",
    "EventDescription",
    "HostingError",
    "Limits",
    "ListSignal",
    "MessageError",
    "NoSessionError",
    "NotSerializableError",
    "Peer",
    "ReactiveError",
    "Registry",
    "Resource",
    "Session",
    "SessionEndedError",
    "Signal",
    "SignedCookie",
    "StorageError",
    "TextSignal",
    "ThreadSession",
    "UnauthorizedError",
    "WriteInComputedError",
    "batch",
    "clock",
    "current_run",
    "from_asyncio",
    "untracked",
]

_MODULES = (
    "registry",
    "errors",
    "limits",
    "peer",
    "reports",
    "reactive",
    "threads",
    "events",
    "streams",
    "resource",
    "session",
    "hosting",
    "cookies",
    "app",
)


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'cacao' has no attribute {name!r}")
    if name == "clock":
        return import_module("cacao.clock")
    modules = (import_module(f"cacao.{module}") for module in _MODULES)
    value: object = next(getattr(module, name) for module in modules if name in module.__all__)
    globals()[name] = value
    return value
