"""Names: which declaration a name stands for, where it was declared, and which app it belongs to.

A bare `Signal(..., name="count")` joins the *current* registry: the one whose `with` block is open,
else the process's default. The first bare `App()` claims that registry; every further one is given
a fresh registry, which becomes the default for what is declared next. So two apps in one process
never see each other's signals.
"""

# ruff: noqa: SLF001 - a registry and the claims on it are one thing

from __future__ import annotations

import sys
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

from cacao.errors import DeclarationError
from cacao.limits import MAX_NAME_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, TracebackType

__all__ = ["Declaration", "Place", "Registry", "claim_registry", "current_registry"]

# A browser would take these for parts of an object's prototype.
_REFUSED_NAMES: Final = frozenset({"__proto__", "constructor", "prototype"})
_PACKAGE: Final = __name__.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the author's code something was declared.

    Attributes:
        file: The code's file name, as Python reports it; `<stdin>` at the prompt.
        line: Line number, from 1.
        qualname: The enclosing function, dotted; `<module>` at the top of a file.
        code: The enclosing code object: each execution of a reloaded module has its own.
    """

    file: str
    line: int
    qualname: str
    code: CodeType

    @classmethod
    def of_caller(cls) -> Place:
        """Return the innermost place on the call stack that is outside of this package."""
        frame = sys._getframe(1)  # what `inspect` does, without reading source files
        while frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE and frame.f_back:
            frame = frame.f_back
        code = frame.f_code
        return cls(code.co_filename, frame.f_lineno, code.co_qualname, code)

    def runs_again(self, earlier: Place) -> bool:
        """Tell whether this is `earlier` executed anew: a reloaded module, a line typed again."""
        return (
            self.code is not earlier.code
            and self.file == earlier.file
            and self.qualname == earlier.qualname
        )

    def precedes(self, later: Place) -> bool:
        """Tell whether this ran in the same module as `later`, and not in an older load of it."""
        return self.file == later.file and not later.runs_again(self)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Declaration:
    """What an author declares once and every session has for itself.

    Attributes:
        name: The name on the wire, unique within a registry; None keeps it on the server.
        client: Whether a named declaration is shown to clients.
        place: Where it was declared.
        is_synced: Whether clients see it: it has a name, and `client` is true.
    """

    __slots__ = ("__weakref__", "client", "is_synced", "name", "place")

    def __init__(self, name: str | None, *, client: bool, place: Place | None = None) -> None:
        self.name = name
        self.client = client
        self.is_synced = client and name is not None
        self.place = place or Place.of_caller()

    @property
    def label(self) -> str:
        """What error messages call it: its name, else its kind and place."""
        return self.name or f"{type(self).__name__.lower()} at {self.place}"

    @property
    def description(self) -> str:
        """What reports of its errors call it: "computed 'total'"."""
        return f"{type(self).__name__.lower()} {self.label!r}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.label!r}>"


class Registry:
    """The named declarations of one app.

    It holds them weakly: a name is free again when its declaration is gone. Used as a context
    manager it is the current registry for what the block declares.

    Example:
        with Registry() as registry:
            count = Signal(0, name="count")
        app = App(registry=registry)
    """

    __slots__ = ("__weakref__", "_by_name", "_callbacks", "_late", "_tokens")

    def __init__(self) -> None:
        self._by_name: WeakValueDictionary[str, Declaration] = WeakValueDictionary()
        self._callbacks: dict[object, Callable[[Declaration], object]] = {}
        self._late: WeakSet[Declaration] = WeakSet()
        self._tokens: list[Token[Registry | None]] = []

    def __enter__(self) -> Self:
        self._tokens.append(_entered.set(self))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _entered.reset(self._tokens.pop())

    @property
    def declarations(self) -> tuple[Declaration, ...]:
        """All that has a name, in the order of declaration."""
        return tuple(self._by_name.values())

    @property
    def synced(self) -> tuple[Declaration, ...]:
        """What clients see, in the order of declaration."""
        return tuple(each for each in self._by_name.values() if each.is_synced)

    def get(self, name: str) -> Declaration | None:
        """Return the declaration called `name`, or None."""
        return self._by_name.get(name)

    def add(self, declaration: Declaration) -> None:
        """Enter a named declaration; one that its own code made before is replaced.

        Raises:
            DeclarationError: If the name is not allowed, or stands for another declaration.
        """
        name = _checked_name(declaration)
        old = self._by_name.get(name)
        if old is not None and not declaration.place.runs_again(old.place):
            raise DeclarationError(
                f"name {name!r} at {declaration.place} is already declared at {old.place}; "
                "pick another name, or give each app a Registry of its own"
            )
        self._by_name[name] = declaration
        self._late.add(declaration)
        for callback in tuple(self._callbacks.values()):
            callback(declaration)

    def subscribe(self, callback: Callable[[Declaration], object]) -> Callable[[], None]:
        """Call `callback` with each named declaration from now on.

        Returns:
            A function that ends it; calling it again does nothing.
        """
        token = object()
        self._callbacks[token] = callback
        return lambda: self._callbacks.pop(token, None) and None

    def _refuse_strays(self, place: Place, owner: Place) -> None:
        """Refuse a further app if its own module has put signals here, into another app's."""
        strays = [each for each in self._late if each.place.precedes(place)]
        if strays and place != owner:  # a factory called twice has its signals after its app
            names = ", ".join(sorted(repr(each.name) for each in strays))
            raise DeclarationError(
                f"the app at {place} comes after {names} in its module, "
                f"which joined the app at {owner}; create the App first, "
                "or give both apps a Registry: App(registry=Registry())"
            )


_entered: ContextVar[Registry | None] = ContextVar("cacao_registry", default=None)
_default = Registry()
_owners: WeakKeyDictionary[Registry, Place] = WeakKeyDictionary()


def current_registry() -> Registry:
    """Return the registry that a bare declaration joins here."""
    return _entered.get() or _default


def claim_registry(place: Place) -> Registry:
    """Return the registry of a bare `App()`, and make it the current one.

    The first app takes the current registry. After that an app executed again (a reloaded module)
    takes back its own, and any other gets a fresh one.

    Args:
        place: Where the app was created.

    Raises:
        DeclarationError: If the app's module has declared names in another app's registry.
    """
    registry = current_registry()
    owner = _owners.get(registry)
    if owner is not None:
        # In order of claim: a reloaded module with two apps claims them in that order again.
        earlier = (each for each, its_owner in _owners.items() if place.runs_again(its_owner))
        own = next(earlier, None)
        if own is not registry:
            registry._refuse_strays(place, owner)
            registry = _make_current(own or Registry())
    _owners[registry] = place
    registry._late.clear()
    return registry


def _make_current(registry: Registry) -> Registry:
    global _default
    if _entered.get() is None:
        _default = registry
    else:
        _entered.set(registry)
    return registry


def _checked_name(declaration: Declaration) -> str:
    name: object = declaration.name
    if not isinstance(name, str):
        raise DeclarationError(
            f"name {name!r} at {declaration.place} is no string; expected one, or no name at all"
        )
    if not name or len(name) > MAX_NAME_LENGTH or name in _REFUSED_NAMES:
        raise DeclarationError(
            f"name {name[:MAX_NAME_LENGTH]!r} at {declaration.place} is not allowed; expected "
            f"1 to {MAX_NAME_LENGTH} characters, and none of {', '.join(sorted(_REFUSED_NAMES))}"
        )
    return name
