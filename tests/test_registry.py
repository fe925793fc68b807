"""Names: unique within a registry, one registry per app, a reloaded module replaces its own."""

from __future__ import annotations

import contextvars
import gc
from typing import TYPE_CHECKING, Any

import pytest

from cacao.errors import DeclarationError
from cacao.reactive import Computed, Signal, Store
from cacao.registry import Declaration, Place, Registry, claim_registry, current_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

APP = "claim_registry(Place.of_caller())"  # what a bare App() does


@pytest.fixture(autouse=True)
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        yield registry


def run(source: str, file: str = "app.py", names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Execute a module's source; doing it again is what a reload does."""
    names = {} if names is None else names
    names |= {"Signal": Signal, "Computed": Computed, "Place": Place, "__name__": "app"}
    names["claim_registry"] = claim_registry
    exec(compile(source, file, "exec"), names)  # noqa: S102 - a module under test
    return names


def names_in(registry: Registry) -> list[str | None]:
    return [declaration.name for declaration in registry.synced]


# --- Names -------------------------------------------------------------------------------------


def test_a_registry_knows_its_declarations_by_name(registry: Registry) -> None:
    count = Signal(0, name="count")
    assert registry.get("count") is count
    assert registry.get("other") is None


def test_synced_holds_what_clients_see_in_order_of_declaration(registry: Registry) -> None:
    b = Signal(0, name="b")
    hidden = Signal(0, name="hidden", client=False)
    unnamed = Signal(0)
    a = Computed(lambda: 1, name="a")

    @Computed(name="c")
    def c() -> int:
        return 1

    assert registry.synced == (b, a, c)
    assert not hidden.is_synced
    assert not unnamed.is_synced


def test_a_name_used_twice_raises_and_names_both_places(registry: Registry) -> None:
    first = Signal(0, name="count")
    with pytest.raises(DeclarationError) as caught:
        Computed(lambda: 1, name="count")
    first_line = first.place.line
    assert f"at {__file__}:{first_line + 2} is already declared at {first.place}" in str(
        caught.value
    )
    assert registry.get("count") is first


def test_the_same_code_run_again_is_a_duplicate(registry: Registry) -> None:
    with pytest.raises(DeclarationError, match="already declared"):
        _ = [Signal(0, name="count") for _ in range(2)]


@pytest.mark.parametrize(
    "name", ["", "__proto__", "constructor", "prototype", "x" * 129, 3], ids=repr
)
def test_some_names_are_refused(name: Any) -> None:
    with pytest.raises(DeclarationError, match=r"name .* at .*test_registry.py:\d+"):
        Signal(0, name=name)


def test_a_name_is_free_again_when_its_declaration_is_gone(registry: Registry) -> None:
    Signal(0, name="count")
    gc.collect()
    assert (registry.get("count"), registry.synced) == (None, ())
    again = Signal(1, name="count")
    assert registry.get("count") is again


def test_two_registries_may_hold_the_same_name() -> None:
    with Registry() as one:
        first = Signal(1, name="count")
    with Registry() as two:
        second = Signal(2, name="count")
    assert (one.synced, two.synced) == ((first,), (second,))


def test_a_subscriber_hears_of_each_new_name_until_it_unsubscribes(registry: Registry) -> None:
    heard: list[Declaration] = []
    unsubscribe = registry.subscribe(heard.append)
    count = Signal(0, name="count")
    Signal(0)
    unsubscribe()
    unsubscribe()
    later = Signal(0, name="later")
    assert heard == [count]
    assert registry.get("later") is later


def test_a_registry_can_be_entered_again_within_itself(registry: Registry) -> None:
    with registry:
        inner = Signal(0, name="inner")
    outer = Signal(0, name="outer")
    assert registry.synced == (inner, outer)


def test_tasks_inherit_the_registry_that_was_entered(registry: Registry) -> None:
    assert contextvars.copy_context().run(current_registry) is registry
    assert contextvars.Context().run(current_registry) is not registry


# --- Reloading ---------------------------------------------------------------------------------


def test_a_reloaded_module_replaces_its_own_declarations(registry: Registry) -> None:
    source = "a = Signal(1, name='a')\nb = Signal(2, name='b')\n"
    old = run(source)
    new = run(source)
    assert registry.synced == (new["a"], new["b"])
    assert old["a"].get(Store()) == 1


def test_another_module_does_not_replace_them() -> None:
    kept = run("a = Signal(1, name='a')")
    with pytest.raises(DeclarationError, match=r"at b.py:1 is already declared at app.py:1"):
        run("a = Signal(1, name='a')", "b.py")
    assert kept["a"].name == "a"


def test_another_function_of_the_module_does_not_replace_them() -> None:
    names = run("def one():\n    return Signal(1, name='a')\na = one()")
    with pytest.raises(DeclarationError, match="already declared"):
        run("a = Signal(1, name='a')", names=names)


# --- Apps --------------------------------------------------------------------------------------


def test_the_first_app_takes_what_was_declared_before_and_after_it(registry: Registry) -> None:
    names = run(f"a = Signal(1, name='a')\napp = {APP}\nb = Signal(2, name='b')")
    assert names["app"] is registry
    assert names_in(names["app"]) == ["a", "b"]


def test_an_app_below_another_starts_without_its_signals() -> None:
    names = run(f"a = Signal(1, name='a')\none = {APP}\ntwo = {APP}")
    assert (names_in(names["one"]), names_in(names["two"])) == (["a"], [])


def test_two_bare_apps_do_not_see_each_others_signals() -> None:
    one = run(f"app = {APP}\ncount = Signal(1, name='count')", "one.py")
    two = run(f"app = {APP}\ncount = Signal(2, name='count')", "two.py")
    assert one["app"].synced == (one["count"],)
    assert two["app"].synced == (two["count"],)


def test_two_apps_from_one_factory_do_not_see_each_others_signals() -> None:
    names = run(f"def make():\n    app = {APP}\n    return app, Signal(1, name='count')")
    (one, first), (two, second) = names["make"](), names["make"]()
    assert (one.synced, two.synced) == ((first,), (second,))


def test_signals_above_a_second_app_in_its_module_are_refused() -> None:
    one = run(f"app = {APP}", "one.py")
    names: dict[str, Any] = {}
    with pytest.raises(DeclarationError) as caught:
        run(f"count = Signal(2, name='count')\napp = {APP}", "two.py", names)
    message = str(caught.value)
    assert "app at two.py:2 comes after 'count' in its module" in message
    assert "joined the app at one.py:1; create the App first" in message
    assert names_in(one["app"]) == ["count"]


def test_a_reloaded_app_takes_back_its_own_registry() -> None:
    source = f"app = {APP}\ncount = Signal(1, name='count')"
    one = run(source, "reloaded.py")
    two = run(source, "two.py")
    again = run(source, "reloaded.py")
    assert again["app"] is one["app"]
    assert again["app"].synced == (again["count"],)
    assert two["app"].synced == (two["count"],)


def test_a_reloaded_module_with_two_apps_gives_each_its_own_again() -> None:
    source = f"one = {APP}\ntwo = {APP}\nb = Signal(2, name='b')"
    old = run(source, "both.py")
    new = run(source, "both.py")
    assert (new["one"], new["two"]) == (old["one"], old["two"])
    assert new["two"].synced == (new["b"],)


def test_a_reloaded_app_below_its_signals_takes_them_over() -> None:
    source = f"count = Signal(1, name='count')\napp = {APP}"
    old = run(source, "below.py")
    new = run(source, "below.py")
    assert new["app"] is old["app"]
    assert new["app"].synced == (new["count"],)


def test_a_module_loaded_in_a_registry_of_its_own_starts_anew() -> None:
    source = f"app = {APP}\ncount = Signal(1, name='count')"
    first = run(source, "fresh.py")
    with Registry() as registry:
        second = run(source, "fresh.py")
    assert second["app"] is registry
    assert first["app"].synced == (first["count"],)


def test_outside_of_any_block_apps_share_out_the_process() -> None:
    def process() -> None:
        one = run(f"app = {APP}\na = Signal(1, name='only here')", "process_one.py")
        two = run(f"app = {APP}\na = Signal(1, name='only here')", "process_two.py")
        assert two["app"] is current_registry()
        assert one["app"].get("only here") is one["a"]
        assert two["app"].get("only here") is two["a"]

    contextvars.Context().run(process)


def test_a_place_outside_of_all_modules_is_found() -> None:
    place = eval("Place.of_caller()", {"Place": Place, "__name__": "cacao.ghost"})  # noqa: S307
    assert place.file == __file__
    assert str(place) == f"{__file__}:{place.line}"
