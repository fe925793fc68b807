"""The pytest plugin, in pytest runs of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest_plugins = "pytester"

COUNTER = """
    from cacao import App, Signal
    app = App()
    count = Signal(0, name="count")
    @app.on("increment")
    async def increment(session, event):
        count.set(session, count.get(session) + 1)
"""


@pytest.fixture
def run(pytester: pytest.Pytester) -> pytest.Pytester:
    """Run in a fresh interpreter: an imported module would be no news to the plugin."""
    pytester.makeini("[pytest]\nfilterwarnings = error")
    return pytester


def outcomes(pytester: pytest.Pytester) -> dict[str, int]:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider").parseoutcomes()


def test_the_five_line_test_passes(run: pytest.Pytester) -> None:
    run.makepyfile(app=COUNTER)
    run.makepyfile(
        test_app="""
        from cacao.testing import TestClient
        from app import app

        def test_increment():
            client = TestClient(app)
            client.send("increment")
            assert client.state["count"] == 1
        """
    )
    assert outcomes(run) == {"passed": 1}


def test_tests_of_one_app_do_not_see_each_other_s_world(run: pytest.Pytester) -> None:
    run.makepyfile(app=COUNTER)
    run.makepyfile(
        test_app="""
        import pytest
        from cacao.testing import TestClient
        from app import app

        @pytest.mark.parametrize("_", range(3))
        def test_increment(_):
            client = TestClient(app)
            client.send("increment")
            client.advance(1)
            assert (client.state["count"], client.time) == (1, 1)
        """
    )
    assert outcomes(run) == {"passed": 3}


def test_two_modules_with_a_bare_app_never_meet(run: pytest.Pytester) -> None:
    module = (
        COUNTER
        + """
    from cacao.testing import TestClient
    def test_increment():
        client = TestClient(app)
        client.send("increment")
        assert client.state == {"count": 1}
    """
    )
    # The signal comes before the app: in one registry its name would be taken.
    signal_first = module.replace("    app = App()\n", "", 1).replace(
        'name="count")\n', 'name="count")\n    app = App()\n', 1
    )
    run.makepyfile(test_one=signal_first, test_two=signal_first, test_three=module)
    assert outcomes(run) == {"passed": 3}


def test_two_tests_may_declare_the_same_name(run: pytest.Pytester) -> None:
    run.makepyfile(
        test_names="""
        from cacao import App, Registry, Signal
        from cacao.testing import TestClient

        def test_one():
            count = Signal(1, name="count")
            assert TestClient(App()).state == {"count": 1}

        def test_two():
            count = Signal(2, name="count")
            assert TestClient(App()).state == {"count": 2}
        """
    )
    assert outcomes(run) == {"passed": 2}


def test_an_error_that_no_call_has_raised_fails_the_test(run: pytest.Pytester) -> None:
    run.makepyfile(
        test_late="""
        import trio
        from cacao import App
        from cacao.testing import TestClient

        def test_leaves_an_error_behind():
            app = App()
            @app.on("wait")
            async def wait():
                try:
                    await trio.sleep_forever()
                finally:
                    raise ValueError("while leaving")
            TestClient(app).send("wait")
        """
    )
    result = run.runpytest_subprocess("-p", "no:cacheprovider")
    assert result.parseoutcomes() == {"passed": 1, "errors": 1}
    result.stdout.fnmatch_lines("*ValueError: while leaving*")


def test_a_leak_fails_the_test_that_left_it_and_no_other(run: pytest.Pytester) -> None:
    run.makepyfile(
        test_leak="""
        import trio
        from cacao import App
        from cacao.testing import TestClient

        app = App()
        @app.on("leak")
        async def leak():
            trio.lowlevel.spawn_system_task(trio.sleep_forever, name="straggler")

        def test_leaks():
            TestClient(app).send("leak")

        def test_is_tidy():
            TestClient(app).send("other")
        """
    )
    result = run.runpytest_subprocess("-p", "no:cacheprovider")
    assert result.parseoutcomes() == {"passed": 2, "errors": 1}
    result.stdout.fnmatch_lines(["*LeakError: left behind*", "*straggler*"])


def test_several_worlds_that_do_not_close_well_are_all_told(run: pytest.Pytester) -> None:
    run.makepyfile(
        test_leaks="""
        import trio
        from cacao import App
        from cacao.testing import TestClient

        def leaky():
            app = App()
            @app.on("leak")
            async def leak():
                trio.lowlevel.spawn_system_task(trio.sleep_forever)
            return app

        def test_leaks_twice():
            TestClient(leaky()).send("leak")
            TestClient(leaky()).send("leak")
        """
    )
    result = run.runpytest_subprocess("-p", "no:cacheprovider")
    result.stdout.fnmatch_lines("*several worlds did not close well (2 sub-exceptions)*")


def test_guests_of_a_wider_fixtures_world_leave_with_their_test(run: pytest.Pytester) -> None:
    run.makepyfile(app=COUNTER)
    run.makepyfile(
        test_app="""
        import pytest
        from app import app
        from cacao.testing import TestClient
        from cacao.testing.open_worlds import find_world

        @pytest.fixture(scope="module")
        def host():
            with TestClient(app) as client:
                yield client

        def open_lines():
            return [line.name for line in find_world(app).stage.lines if not line.has_left]

        @pytest.mark.parametrize("name", ["alice", "bob"])
        def test_one(host, name):
            host.user(name), TestClient(app)
            assert open_lines()[:2] == ["client 1", name] and len(open_lines()) == 3

        def test_host_is_alone_again(host):
            assert open_lines() == ["client 1"]
        """
    )
    assert outcomes(run) == {"passed": 3}


def test_the_fixture_makes_clients(run: pytest.Pytester) -> None:
    run.makepyfile(app=COUNTER)
    run.makepyfile(
        test_app="""
        from app import app

        def test_two_users(cacao_client):
            alice, bob = cacao_client(app), cacao_client(app)
            alice.send("increment")
            assert (alice.state["count"], bob.state["count"]) == (1, 0)
        """
    )
    assert outcomes(run) == {"passed": 1}


def test_the_client_is_no_test_case_to_pytest(run: pytest.Pytester) -> None:
    run.makepyfile(test_nothing="from cacao.testing import *\ndef test_nothing(): pass")
    assert outcomes(run) == {"passed": 1}


def test_the_plugin_does_not_import_the_test_client() -> None:
    script = "import sys, cacao.testing.plugin; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    testing = {name for name in done.stdout.split() if name.startswith("cacao.testing.")}
    loaded = {"failures", "open_worlds", "plugin", "settings"}  # which import nothing of Cacao
    assert testing == {f"cacao.testing.{name}" for name in loaded}
