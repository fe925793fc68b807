"""Cacao: state on the server, React in the browser, structured concurrency throughout."""

from cacao.app import App
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
    WriteInComputedError,
)
from cacao.hosting import from_asyncio
from cacao.limits import Limits
from cacao.reactive import Computed, Effect, Signal, batch, untracked
from cacao.registry import Registry
from cacao.session import ErrorReport, Session

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
    "HostingError",
    "Limits",
    "MessageError",
    "NoSessionError",
    "NotSerializableError",
    "ReactiveError",
    "Registry",
    "Session",
    "Signal",
    "WriteInComputedError",
    "batch",
    "from_asyncio",
    "untracked",
]
