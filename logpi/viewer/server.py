"""HTTP for the viewer: routes, the token, headers that keep a model's text harmless.

    GET /               the page             GET /page/FILE      its files
    GET /api/runs …     JSON, with the token in `X-Token` (or `?token=`)

It listens on the loopback address. Only a request with the right token gets anything of a run, and
only one that names the address itself as its host: a page elsewhere cannot ask on a user's behalf.
Left out: what the answers hold (`runs_index.py`, `run_page.py`, `samples_index.py`,
`sample_page.py`).
"""

from __future__ import annotations

import hmac
import mimetypes
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.datastructures import Headers, QueryParams
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from logpi.errors import UserError, one_line
from logpi.runs.summary import number
from logpi.viewer.comparison_page import comparison_json
from logpi.viewer.files import Folders, ViewError
from logpi.viewer.json_answer import to_json
from logpi.viewer.mathematics import objective_json
from logpi.viewer.run_page import metrics_json, picture, run_json
from logpi.viewer.runs_index import FoundRun, RunsIndex
from logpi.viewer.sample_page import group_json, mark_specials, prompt_json, sample_json
from logpi.viewer.samples_index import SORTS, Query, SamplesIndex

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGE = Path(__file__).parent / "page"
# Only what the server itself serves: no script or style inline or from elsewhere, no frames.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:;"
    " media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
MOST_ROWS, MOST_RUNS, MOST_NAMES = 500, 50, 500
MOST_BYTES = 2**53
Answer = Callable[["Viewer", Mapping[str, str], QueryParams], Any]


def viewer_app(folders: Folders, token: str, host: str = "127.0.0.1") -> ASGIApp:
    """The whole application.

    Args:
        token: what every request for anything of a run must carry. host: the address or name that
            it is reached by.
    """
    viewer = Viewer(folders)
    routes = [Route("/", _index), Route("/page/{name:path}", _page_file)]
    routes += [Route(path, _endpoint(viewer, answer)) for path, answer in ROUTES.items()]
    handlers: dict[Any, Any] = {HTTPException: _refused, Exception: _failed}
    app = Starlette(routes=routes, exception_handlers=handlers)
    return Guard(app, token, {*LOOPBACK, host, f"[{host}]"})


class Guard:
    """Lets only requests in that name this host and, for `/api`, carry the token; and puts the
    headers on every answer."""

    def __init__(self, app: ASGIApp, token: str, hosts: set[str]) -> None:
        self.app, self.token, self.hosts = app, token.encode(), hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [(k, v) for k, v in message["headers"] if k.lower() not in HEADERS]
                message["headers"] = [*kept, *HEADERS.items()]
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self.app)(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        name = _host_name(headers.get("host", ""))
        if name not in self.hosts:
            return _error(
                "the viewer was not started for this host: give --host the address that you open",
                403,
            )
        if scope["method"] not in ("GET", "HEAD"):
            return _error("the viewer only reads: GET", 405)
        if not scope["path"].startswith("/api/"):
            return None
        query = QueryParams(scope["query_string"])
        given = headers.get("x-token") or query.get("token") or ""
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self.token):
            return _error("the token is missing or wrong: open the address that was printed", 403)
        return None


def _host_name(host: str) -> str:
    """Without the port: `[::1]:80` is `[::1]`."""
    return host if host.endswith("]") else host.rpartition(":")[0] if ":" in host else host


# --- answers ---


class Viewer:
    """What the answers are made from."""

    def __init__(self, folders: Folders) -> None:
        self.folders = folders
        self.runs = RunsIndex(folders)
        self._samples: dict[str, SamplesIndex] = {}

    def run(self, path: Mapping[str, str]) -> FoundRun:
        return self.runs.run(path["id"])

    def samples(self, run: FoundRun) -> SamplesIndex:
        """The index of a run's responses; kept as long as the server runs."""
        if run.id not in self._samples:
            self._samples[run.id] = SamplesIndex(self.folders, run.path)
        return self._samples[run.id]


def _runs(viewer: Viewer, path: Mapping[str, str], query: QueryParams) -> Any:
    return viewer.runs.listed()


def _run(viewer: Viewer, path: Mapping[str, str], query: QueryParams) -> Any:
    run = viewer.run(path)
    return run_json(viewer.runs, run, viewer.samples(run).kinds())


def _objective(viewer: Viewer, path: Mapping[str, str], query: QueryParams) -> Any:
    record = viewer.runs.record(viewer.run(path))
    return objective_json(record.command, record.arguments)


def _metrics(viewer: Viewer, path: Mapping[str, str], query: QueryParams) -> Any:
    run = viewer.run(path)
    names = [n for n in query.get("names", "").split(",") if n][:MOST_NAMES]
    after = _whole(query, "after", 0, least=0, most=MOST_BYTES)
    return metrics_json(viewer.folders, run, names, after)


def _samples(viewer: Viewer, path: Mapping[str, str], query: QueryParams) -> Any:
    run = viewer.run(path)
    answer = viewer.samples(run).answer(query_of(query))
    mark_specials(viewer.samples(run), viewer.runs.record(run), answer["rows"])
    return answer


def query_of(query: QueryParams) -> Query:
    """The responses that a request wants. Raises ViewError (400)."""
    sort = query.get("sort") or "newest"
    if sort not in SORTS:
        raise ViewError(f"sort is one of {', '.join(SORTS)}", 400)
    return Query(
        kind=_kind(query),
        steps=(_whole(query, "from"), _whole(query, "to")),
        reward=(_real(query, "reward_min"), _real(query, "reward_max")),
        part=query.get("part", ""),
        part_reward=(_real(query, "part_min"), _real(query, "part_max")),
        length=(_whole(query, "length_min"), _whole(query, "length_max")),
        stop=query.get("stop", ""),
        text=query.get("text", ""),
        sort=sort,
        offset=_whole(query, "offset", 0, least=0),
        limit=_whole(query, "limit", 50, least=0, most=MOST_ROWS),
    )


def _sample(viewer: Viewer, path: Mapping[str, str], query: QueryParams) -> Any:
    run = viewer.run(path)
    window = (_whole(query, "from", 0, least=0), _whole(query, "count", 2000, least=0))
    record = viewer.runs.record(run)
    return sample_json(viewer.samples(run), record, _place(query), window)


def _group(viewer: Viewer, path: Mapping[str, str], query: QueryParams) -> Any:
    step, group = _whole(query, "step", 0), _whole(query, "group", 0)
    run = viewer.run(path)
    answer = group_json(viewer.samples(run), _kind(query), step, group)
    mark_specials(viewer.samples(run), viewer.runs.record(run), answer["rows"])
    return answer


def _prompt(viewer: Viewer, path: Mapping[str, str], query: QueryParams) -> Any:
    return prompt_json(viewer.samples(viewer.run(path)), _place(query))


def _file(viewer: Viewer, path: Mapping[str, str], query: QueryParams) -> Any:
    data, kind = picture(viewer.folders, viewer.run(path), query.get("name", ""))
    return Response(data, media_type=kind)


def _compare(viewer: Viewer, path: Mapping[str, str], query: QueryParams) -> Any:
    ids = list(dict.fromkeys(i for i in query.get("ids", "").split(",") if i))
    if not 1 <= len(ids) <= MOST_RUNS:
        raise ViewError(f"compare 1 to {MOST_RUNS} runs: ids=a,b", 400)
    return comparison_json(viewer.runs, [viewer.runs.run(id) for id in ids])


ROUTES: dict[str, Answer] = {
    "/api/runs": _runs,
    "/api/run/{id}": _run,
    "/api/run/{id}/objective": _objective,
    "/api/run/{id}/metrics": _metrics,
    "/api/run/{id}/samples": _samples,
    "/api/run/{id}/sample": _sample,
    "/api/run/{id}/group": _group,
    "/api/run/{id}/prompt": _prompt,
    "/api/run/{id}/file": _file,
    "/api/compare": _compare,
}


# --- requests ---


def _kind(query: QueryParams) -> str:
    kind = query.get("kind") or "step"
    if kind not in ("step", "eval"):
        raise ViewError("kind is step or eval", 400)
    return kind


def _place(query: QueryParams) -> tuple[str, int, int]:
    return _kind(query), _whole(query, "step", 0, least=0), _whole(query, "row", 0, least=0)


def _whole(
    query: QueryParams,
    name: str,
    otherwise: int | None = None,
    least: int = -(2**53),
    most: int = 2**53,
) -> Any:
    """A whole number of a request; None or `otherwise` if it is not given."""
    text = query.get(name, "")
    if not text:
        return otherwise
    try:
        value = int(text)
    except ValueError:
        raise ViewError(f"{name} is a whole number, not {text[:40]!r}", 400) from None
    return min(max(value, least), most)


def _real(query: QueryParams, name: str) -> float | None:
    text = query.get(name, "")
    try:
        value = number(float(text)) if text else None
    except ValueError:
        raise ViewError(f"{name} is a number, not {text[:40]!r}", 400) from None
    return value


# --- responses ---


def _json(value: Any, status: int = 200) -> Response:
    return Response(to_json(value), status, media_type="application/json")


def _error(text: str, status: int) -> Response:
    return _json({"error": one_line(text)}, status)


def _endpoint(viewer: Viewer, answer: Answer) -> Callable[[Request], Response]:
    """A route's function; Starlette runs it in a thread, so a long reading stops nobody else."""

    def endpoint(request: Request) -> Response:
        try:
            value = answer(viewer, request.path_params, request.query_params)
            return value if isinstance(value, Response) else _json(value)
        except ViewError as error:
            return _error(str(error), error.status)
        except UserError as error:
            return _error(str(error), 400)
        except FileNotFoundError:
            return _error("the run was deleted while it was read", 404)

    return endpoint


def _index(request: Request) -> Response:
    return _page("index.html")


def _page_file(request: Request) -> Response:
    return _page(request.path_params["name"])


def _page(name: str) -> Response:
    """A file of the page itself."""
    path = (PAGE / name).resolve()
    if PAGE.resolve() not in path.parents or not path.is_file():
        return _error("the page has no such file", 404)
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    kind = "text/javascript" if path.suffix == ".js" else kind
    return Response(path.read_bytes(), media_type=kind)


def _refused(request: Request, error: HTTPException) -> Response:
    return _error("there is no such page", error.status_code)


def _failed(request: Request, error: Exception) -> Response:
    return _error(f"{type(error).__name__} in the viewer; the terminal says more", 500)
