"""HTTP for the server: routes, the key, limits, events, and clients that go away.

    GET  /health  /v1/models  /tokenizer_info
    POST /v1/completions  /v1/chat/completions  /tokenize  /detokenize
    POST /v1/weights

Without a key only requests that name the loopback address as their host get in, and only bodies of
JSON are read: a page in a browser can send neither. Left out: what answers hold (`service.py`),
TLS, and listening (`commands/serve.py`).
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from logpi.engine.openai_server.errors import RequestError
from logpi.engine.openai_server.scheduler import Ask, Event, Failed, Piece, Started
from logpi.errors import did_you_mean

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from logpi.engine.openai_server.answers import Answer
    from logpi.engine.openai_server.service import Service

LOOPBACK = {"127.0.0.1", "localhost", "[::1]"}
# status of a request whose client has gone away, as nginx logs it
GONE = 499


def server_app(service: Service, key: str = "") -> ASGIApp:
    """The whole application. key: that every request but /health must carry; "": none, and requests
    must come by the loopback address."""
    gets = {
        "/health": service.health,
        "/v1/models": service.models,
        "/tokenizer_info": service.tokenizer,
    }
    posts = {
        "/tokenize": service.tokenize,
        "/detokenize": service.detokenize,
        "/v1/weights": service.load,
    }
    asked = {"/v1/completions": service.completion, "/v1/chat/completions": service.chat}
    routes = [Route(path, _get(answer)) for path, answer in gets.items()]
    routes += [
        Route(path, _post(service, answer), methods=["POST"]) for path, answer in posts.items()
    ]
    routes += [
        Route(path, _sampled(service, question), methods=["POST"])
        for path, question in asked.items()
    ]
    handlers: dict[Any, Any] = {
        RequestError: _refused,
        HTTPException: _no_route,
        Exception: _failed,
    }
    return Guard(Starlette(routes=routes, exception_handlers=handlers), key)


class Guard:
    """Lets only requests in that carry the key or, without one, name the loopback address."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app, self.key = app, key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (error := self._refusal(scope)):
            await _refused(None, error)(scope, receive, send)
        elif scope["type"] in ("http", "lifespan"):
            await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> RequestError | None:
        headers = Headers(scope=scope)
        if not self.key:
            host = headers.get("host", "")
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name not in LOOPBACK:
                return RequestError(f"without a key the host is 127.0.0.1, not {name[:60]!r}", 403)
            return None
        given = headers.get("authorization", "").removeprefix("Bearer ").encode("utf-8", "replace")
        if scope["path"] == "/health" or hmac.compare_digest(given, self.key):
            return None
        return RequestError("the API key is missing or wrong: Authorization: Bearer KEY", 401)


# --- routes ---


def _get(answer: Callable[[], Any]) -> Callable[[Request], Any]:
    def endpoint(request: Request) -> Response:
        return JSONResponse(answer())

    return endpoint


def _post(service: Service, answer: Callable[[Any], Any]) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        body = await _body(service, request)
        return JSONResponse(await run_in_threadpool(answer, body))

    return endpoint


def _sampled(service: Service, question: Callable[[Any], Answer]) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        body = await _body(service, request)
        answer = await run_in_threadpool(question, body)
        reply = Reply(service, answer)
        if answer.wish.stream:
            return StreamingResponse(reply.events(), media_type="text/event-stream")
        return await reply.whole(request)

    return endpoint


async def _body(service: Service, request: Request) -> Any:
    """The JSON of a request.

    Raises:
        RequestError: it is none, too long, or does not arrive.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError("the body must be JSON: Content-Type: application/json", 415)
    most, data = service.limits.body, bytearray()
    try:
        async with asyncio.timeout(service.limits.upload):
            async for part in request.stream():
                data += part
                if len(data) > most:
                    raise RequestError(f"the body has more than {most} bytes", 413)
    except TimeoutError:
        raise RequestError("the body did not arrive in time", 408) from None
    return await run_in_threadpool(_parsed, data)


def _parsed(data: bytearray) -> Any:
    try:
        return json.loads(data, parse_constant=_no_number) if data else {}
    except (ValueError, RecursionError):
        raise RequestError("the body is not valid JSON") from None


def _no_number(name: str) -> None:
    raise ValueError(name)


# --- samples ---


class Reply:
    """An answer that is being sampled. Raises RequestError if the server is busy."""

    def __init__(self, service: Service, answer: Answer) -> None:
        self.service, self.answer = service, answer
        self._loop, self._queue = asyncio.get_running_loop(), asyncio.Queue[Event]()
        q = answer.question
        self._ask = Ask(q.prompts, q.limits, q.wish, q.words, answer.scored, self._tell)
        service.scheduler.submit(self._ask)

    def _tell(self, event: Event) -> None:
        """In the sampling thread."""
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, event)
        except RuntimeError:
            # the server has ended
            return

    async def whole(self, request: Request) -> Response:
        """The answer in one piece, unless the client goes away."""
        work, gone = asyncio.create_task(self._collected()), asyncio.create_task(_gone(request))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return Response(status_code=GONE)
            # with log-probabilities it is long
            return await run_in_threadpool(lambda: JSONResponse(self.answer.whole(work.result())))
        finally:
            work.cancel()
            gone.cancel()
            self.service.scheduler.cancel(self._ask)

    async def _collected(self) -> list[Piece]:
        return [piece async for piece in self._pieces()]

    async def events(self) -> AsyncIterator[bytes]:
        """The answer as server-sent events."""
        try:
            async for piece in self._pieces():
                for chunk in self.answer.chunks(piece):
                    yield _event(chunk)
            for chunk in self.answer.last():
                yield _event(chunk)
        except RequestError as error:
            yield _event(error.body())
        finally:
            self.service.scheduler.cancel(self._ask)
        yield b"data: [DONE]\n\n"

    async def _pieces(self) -> AsyncIterator[Piece]:
        """The pieces as they come.

        Raises:
            RequestError: sampling failed, or took too long.
        """
        left, seconds = self._ask.rows, self.service.limits.seconds
        end = self._loop.time() + seconds
        while left:
            try:
                async with asyncio.timeout_at(end):
                    event = await self._queue.get()
            except TimeoutError:
                raise RequestError(f"no answer within {seconds:g} s (--timeout)", 504) from None
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Started):
                self.answer.begin(event)
                continue
            left -= bool(event.finish)
            yield event


async def _gone(request: Request) -> None:
    """Returns when the client has gone away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _event(value: Any) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"


# --- errors ---


def _refused(request: Any, error: RequestError) -> Response:
    headers = {"Retry-After": "1"} if error.status == 429 else None
    return JSONResponse(error.body(), error.status, headers)


def _no_route(request: Request, error: HTTPException) -> Response:
    path, allowed = request.url.path[:200], (error.headers or {}).get("Allow", "")
    if error.status_code == 405:
        # starlette lists GET with HEAD
        method = "POST" if "POST" in allowed else "GET"
        why = f"{path} is a {method} route: it takes no {request.method}"
    else:
        known = [route.path for route in request.app.routes]
        why = f"{request.method} {path}: no such route{did_you_mean(path, known)}"
    refusal = _refused(request, RequestError(why, error.status_code))
    refusal.headers.update({"Allow": allowed} if allowed else {})
    return refusal


def _failed(request: Request, error: Exception) -> Response:
    # uvicorn logs it
    return _refused(request, RequestError(f"{type(error).__name__} in the server", 500))
