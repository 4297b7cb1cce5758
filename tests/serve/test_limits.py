"""Budgets, rates and bodies."""

from __future__ import annotations

import asyncio

import pytest

from rayseg.serve.door import refuse
from rayseg.serve.limits import CALLER, BodyGate, BodyLimits, Budget, Rates
from rayseg.serve.problems import Problem


def test_a_budget_is_handed_out_in_the_order_of_asking():
    async def check() -> None:
        budget = Budget(10)
        order = []

        async def hold(name: str, amount: int, release: asyncio.Event) -> None:
            async with budget.held(amount):
                order.append(name)
                await release.wait()

        first, rest = asyncio.Event(), asyncio.Event()
        tasks = [asyncio.create_task(hold("first", 8, first))]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(hold("large", 50, rest)))  # more than there is: all of it
        tasks.append(asyncio.create_task(hold("small", 1, rest)))  # would fit, but came later
        given_up = asyncio.create_task(hold("gone", 9, rest))
        await asyncio.sleep(0)
        assert order == ["first"]
        assert not budget.take(1)
        given_up.cancel()
        first.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert order == ["first", "large"]
        rest.set()
        await asyncio.gather(*tasks)
        assert order == ["first", "large", "small"]
        assert budget.used == 0

    asyncio.run(check())


def test_who_gives_up_while_waiting_holds_nothing():
    async def check() -> None:
        budget = Budget(4)
        assert budget.take(4)
        holders = [budget.held(3) for _ in range(3)]
        waiting = [asyncio.create_task(holder.__aenter__()) for holder in holders]
        await asyncio.sleep(0)
        budget.give(4)  # the first has it now, but is cancelled before it runs
        waiting[0].cancel()
        waiting[1].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert budget.used == 3
        assert waiting[2].done() and not waiting[2].cancelled()

    asyncio.run(check())


def test_rates_are_per_caller_and_fill_again():
    now = 0.0
    rates = Rates(2.0, 3, clock=lambda: now)
    for _ in range(3):
        rates.check("alice")
    with pytest.raises(Problem) as caught:
        rates.check("alice")
    assert caught.value.status == 429
    assert caught.value.headers == {"Retry-After": "1"}
    rates.check("bob")
    now = 0.5
    rates.check("alice")
    with pytest.raises(Problem):
        rates.check("alice")
    now = 1000.0
    for _ in range(3):
        rates.check("alice")
    with pytest.raises(Problem):
        rates.check("alice")
    for _ in range(100):
        Rates(None, 1).check("anyone")


def test_a_refusal_says_how_long_to_wait():
    now = 0.0
    rates = Rates(0.1, 1, clock=lambda: now)
    rates.check("a")
    with pytest.raises(Problem) as caught:
        rates.check("a")
    wait_s = int(caught.value.headers["Retry-After"])
    now = float(wait_s)
    rates.check("a")
    assert wait_s <= 11


def send_body(chunks: list[bytes | None], *, declared: int | None = None, limits: BodyLimits, taken: int = 0):
    """What comes of a body in `chunks` (None: nothing more ever comes): its answer's status, what the application saw."""

    async def go() -> tuple[int | None, bytes | None, BodyGate]:
        seen: list[bytes] = []
        statuses: list[int] = []
        waiting = list(chunks)

        async def app(scope, receive, send):
            message = await receive()
            assert not message["more_body"]
            seen.append(message["body"])
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def receive():
            chunk = waiting.pop(0)
            if chunk is None:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": chunk, "more_body": bool(waiting)}

        async def send(message):
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        gate = BodyGate(app, limits, refuse)
        assert gate.budget.take(taken)
        headers = [] if declared is None else [(b"content-length", str(declared).encode())]
        await gate({"type": "http", "method": "POST", "headers": headers, "path": "/"}, receive, send)
        return (statuses or [None])[0], (seen or [None])[0], gate

    status, seen, gate = asyncio.run(go())
    assert gate.budget.used == taken  # whatever happened, nothing stays held
    return status, seen


LIMITS = BodyLimits(max_body_bytes=10, max_waiting_bytes=20, body_timeout_s=60)


def test_a_body_reaches_the_application_whole():
    assert send_body([b"abc", b"", b"defghij"], limits=LIMITS) == (200, b"abcdefghij")
    assert send_body([b""], limits=LIMITS) == (200, b"")


def test_a_body_over_the_limit_is_refused_by_its_length_and_by_its_bytes():
    assert send_body([b"never read"], declared=11, limits=LIMITS) == (413, None)
    assert send_body([b"abcdef", b"ghijk", b"never read"], limits=LIMITS) == (413, None)
    assert send_body([b"abc", b"defghijklm"], declared=3, limits=LIMITS) == (413, None)


def test_bodies_share_a_bound():
    assert send_body([b"abcdef"], limits=LIMITS, taken=14) == (200, b"abcdef")
    assert send_body([b"abcdef"], limits=LIMITS, taken=15) == (503, None)


def test_one_caller_leaves_room_for_others():
    """Bodies that never end: of a caller with a name they fill half of the room, and then another's still goes through."""

    async def go() -> list[int]:
        statuses: list[int] = []
        never = asyncio.Event()

        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def send(message):
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        def visit(caller: str, size: int, *, whole: bool):
            async def receive():
                if not whole and receive.asked:  # type: ignore[attr-defined]
                    await never.wait()
                receive.asked = True  # type: ignore[attr-defined]
                return {"type": "http.request", "body": bytes(size), "more_body": not whole}

            receive.asked = False  # type: ignore[attr-defined]
            scope = {"type": "http", "method": "POST", "headers": [], "path": "/", "state": {CALLER: caller}}
            return gate(scope, receive, send)

        gate = BodyGate(app, LIMITS, refuse)
        held = [asyncio.create_task(visit("alice", 5, whole=False)) for _ in range(2)]
        await asyncio.sleep(0)
        await visit("alice", 5, whole=True)
        await visit("bob", 5, whole=True)
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        await visit("alice", 5, whole=True)
        assert gate.budget.used == 0
        return statuses

    assert asyncio.run(go()) == [503, 200, 200]


def test_a_slow_body_is_given_up():
    slow = BodyLimits(10, 20, body_timeout_s=0.01)
    assert send_body([b"abc", None], limits=slow) == (408, None)


def test_ray_serves_proxies_bound_bodies_too(monkeypatch):
    from rayseg.serve.proxy import middlewares

    monkeypatch.setenv("RAYSEG_SERVE_MAX_BODY_BYTES", "10")
    (middleware,) = middlewares()

    async def check() -> list[int]:
        statuses = []

        async def app(scope, receive, send):
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def send(message):
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        for body in (b"0123456789", b"0123456789x"):

            async def receive(body=body):
                return {"type": "http.request", "body": body, "more_body": False}

            gate = middleware.cls(app, *middleware.args, **middleware.kwargs)
            await gate({"type": "http", "method": "POST", "headers": [], "path": "/"}, receive, send)
        return statuses

    assert asyncio.run(check()) == [200, 413]
