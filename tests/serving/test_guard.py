"""Who is let in."""

import asyncio

import pytest

from imagen_jax.serving import guard

TOKEN = "a token of some length"
WITH_TOKEN = guard.Guard(token=TOKEN, port=8000)


def test_a_token_is_made_where_others_can_reach_the_page():
    assert guard.checked_token(None, "127.0.0.1") == ""
    assert guard.checked_token(None, "::1") == ""
    assert guard.checked_token(None, "localhost") == ""
    made = {guard.checked_token(None, host) for host in ("0.0.0.0", "10.0.0.2", "box")}
    assert len(made) == 3 and min(map(len, made)) >= 32
    assert guard.checked_token(TOKEN, "127.0.0.1") == TOKEN
    for short in ("", "secret", "ü" * 20):
        with pytest.raises(ValueError, match="at least 16"):
            guard.checked_token(short, "0.0.0.0")


def test_without_the_token_nothing_is_told(serving):
    async def go():
        async with serving(WITH_TOKEN) as client:
            for path in ("/api/model", "/page.js", "/nothing"):
                assert (await client.get(path)).status == 401
            answer = await client.post("/api/drawings", json={"prompt": "a cat"})
            assert answer.status == 401
            # A person is led to where it is asked for, whose style is there.
            page = await client.get("/")
            assert page.url.path == "/enter" and "Token" in await page.text()
            assert (await client.get("/page.css")).status == 200
            wrong = {"Authorization": "Bearer a token of some other"}
            assert (await client.get("/api/model", headers=wrong)).status == 401
            odd = {"Cookie": "imagen_jax_8000=\xfc"}
            assert (await client.get("/api/model", headers=odd)).status == 401
            right = {"Authorization": f"Bearer {TOKEN}"}
            assert (await client.get("/api/model", headers=right)).status == 200

    asyncio.run(go())


@pytest.mark.parametrize("by", ["form", "address"])
def test_the_token_is_traded_for_a_cookie_that_does_not_tell_it(serving, by):
    async def enter(client, token):
        if by == "form":
            return await client.post(
                "/enter", data={"token": token}, allow_redirects=False
            )
        return await client.get("/", params={"token": token}, allow_redirects=False)

    async def go():
        async with serving(WITH_TOKEN) as client:
            answer = await enter(client, TOKEN[:-1])
            assert answer.status == 303 and not answer.cookies
            assert (await client.get("/api/model")).status == 401
            answer = await enter(client, TOKEN)
            assert answer.headers["Location"] == "/"
            cookie = answer.cookies["imagen_jax_8000"]
            assert cookie["httponly"] and cookie["samesite"] == "Strict"
            assert TOKEN not in cookie.value and len(cookie.value) == 64
            # The test's client, as browsers, keeps no cookies of bare addresses.
            sent = {"Cookie": f"imagen_jax_8000={cookie.value}"}
            assert (await client.get("/api/model", headers=sent)).status == 200

    asyncio.run(go())


def test_names_that_are_not_the_servers_are_refused(serving):
    """As DNS rebinding has them; with the port of a forwarded connection or none."""

    async def go():
        who = guard.Guard(names=frozenset({"box.lan"}))
        async with serving(who) as client:
            for host, status in {
                "localhost:9000": 200,
                "127.0.0.1": 200,
                "[::1]:8000": 200,
                "192.168.1.5:8000": 200,
                "box.lan": 200,
                "box.lan.evil.com": 403,
                "evil.com:8000": 403,
                "localhost.evil.com": 403,
                "": 403,
            }.items():
                answer = await client.get("/", headers={"Host": host})
                assert answer.status == status, host

    asyncio.run(go())


def test_other_sites_can_neither_ask_nor_look(serving, door):
    async def go():
        async with serving() as client:
            own = f"http://127.0.0.1:{client.port}"
            for headers, status in (
                ({"Origin": own}, 202),
                ({"Sec-Fetch-Site": "same-origin", "Origin": own}, 202),
                ({"Origin": "http://evil.com"}, 403),
                ({"Origin": f"http://127.0.0.1:{client.port + 1}"}, 403),
                ({"Origin": "null"}, 403),
                ({"Sec-Fetch-Site": "cross-site"}, 403),
                ({"Sec-Fetch-Site": "same-site"}, 403),
            ):
                answer = await client.post(
                    "/api/drawings", json={"prompt": "a cat"}, headers=headers
                )
                assert answer.status == status, headers
            other = {"Sec-Fetch-Site": "cross-site"}
            assert (await client.get("/api/model", headers=other)).status == 403
            # A link from elsewhere may show the page.
            assert (await client.get("/", headers=other)).status == 200

    asyncio.run(go())
