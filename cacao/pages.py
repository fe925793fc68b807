"""What plain HTTP answers: the page's built files, `/health`, and the author's own routes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quart import Response, has_request_context, request, send_from_directory
from quart_trio import QuartTrio
from quart_trio.wrappers.response import TrioFileBody, TrioResponse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["make_quart"]

# Vite names these by their content, so a browser may keep them for good; all else it asks for
# again, and gets 304 where nothing changed.
_HASHED = "assets/"
_YEAR = 365 * 24 * 3600


class _FileBody(TrioFileBody):
    """A file on its way to a browser: closed also if that goes as the file is opened."""

    async def __aenter__(self) -> TrioFileBody:
        try:
            return await super().__aenter__()
        except BaseException:
            if self.file is not None:
                await self.file.aclose()
            raise


class _Response(TrioResponse):
    file_body_class = _FileBody


class _Site(QuartTrio):
    """A Quart app that reports what its routes raise as all other code of the author's does."""

    response_class = _Response

    def __init__(self, report: Callable[[str, Exception], object]) -> None:
        super().__init__("cacao", static_folder=None)
        self._report = report

    def log_exception(self, *details: Any) -> None:
        # Quart 0.23 (Python 3.13) gives the context first; the exception is the last in all.
        if has_request_context():  # the lifespan's are reported by whoever drives it
            self._report(f"route {request.method} {request.path}", details[-1][1])


def make_quart(
    static_folder: Path | None,
    report: Callable[[str, Exception], object],
    max_upload_bytes: int = 16 * 1024 * 1024,
) -> QuartTrio:
    """Make the HTTP side of an app.

    Args:
        static_folder: Built files, of which `index.html` is the page at `/`; None for a page that
            says how to get one.
        report: Told of what a route raises: where, and what. The client gets a 500 without it.
        max_upload_bytes: A larger request is answered with 413.
    """
    quart = _Site(report)
    quart.config["MAX_CONTENT_LENGTH"] = max_upload_bytes
    quart.config["SEND_FILE_MAX_AGE_DEFAULT"] = None

    @quart.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @quart.get("/")
    @quart.get("/<path:name>")
    async def static(name: str = "index.html") -> Response:
        if static_folder is None or not (static_folder / "index.html").is_file():
            return _no_page(static_folder) if name == "index.html" else _not_found()
        response = await send_from_directory(static_folder, name, conditional=True)
        if name.startswith(_HASHED):
            response.cache_control.max_age = _YEAR
            response.cache_control.immutable = True
        else:
            response.cache_control.no_cache = True
        return response

    return quart


def _no_page(static_folder: Path | None) -> Response:
    if static_folder is None:
        text = "This Cacao app has no page. Name the folder of its built files:\n\n"
        text += '    app = App(static_folder="page/dist")\n'
    else:
        text = f"There is no index.html in {static_folder.name!r}: build the page first.\n"
    return Response(text, status=404, content_type="text/plain; charset=utf-8")


def _not_found() -> Response:
    return Response("not found\n", status=404, content_type="text/plain; charset=utf-8")
