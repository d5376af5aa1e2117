"""What the server answers, from asking to the PNG."""

import asyncio
import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from imagen_jax.cascade import picture_files

CAT = {"prompt": "a red cat", "seed": 3}


def png(height=16, width=16, mode="RGB", value=200):
    file = io.BytesIO()
    Image.new(mode, (width, height), value if mode == "L" else (value, 10, 10)).save(
        file, "PNG"
    )
    return base64.b64encode(file.getvalue()).decode()


async def events(client, *ids, until=None):
    """What the stream tells, to its end or until `until` holds of one event."""
    found = []
    async with client.get(
        "/api/events", params=[("drawing", i) for i in ids]
    ) as stream:
        assert stream.content_type == "text/event-stream"
        async for line in stream.content:
            if line.startswith(b"data: "):
                found.append(json.loads(line[6:]))
                if until is not None and until(found[-1]):
                    break
    return found


async def ask(client, **asked):
    answer = await client.post("/api/drawings", json={**CAT, **asked})
    return answer.status, await answer.json()


def test_stages_appear_as_they_are_drawn_and_the_png_holds_the_settings(
    serving, door, model, tmp_path
):
    async def go():
        async with serving() as client:
            door.open()
            stages = [{"stage": "base", "steps": 3, "guidance": 2.5}]
            status, told = await ask(client, num=2, stages=stages)
            assert (status, told["unknown"]) == (202, [])
            heard = await events(client, told["drawing"])
            last = heard[-1]
            assert last["state"] == "done" and last["place"] == 0
            assert [(s["name"], s["count"]) for s in last["stages"]] == [
                ("base", 2),
                ("up", 2),
            ]
            looks = [look for event in heard for look in event.get("looks", ())]
            assert {look["picture"] for look in looks} == {0, 1}
            source = looks[0]["source"].partition("base64,")[2]
            shown = Image.open(io.BytesIO(base64.b64decode(source)))
            assert shown.size in ((8, 8), (16, 16))
            path = f"/api/drawings/{told['drawing']}/up/1.png"
            answer = await client.get(path)
            assert answer.content_type == "image/png"
            return await answer.read()

    (tmp_path / "picture.png").write_bytes(asyncio.run(go()))
    told = picture_files.read_settings(tmp_path / "picture.png")
    assert told is not None
    assert (told["prompt"], told["seed"], told["number"]) == ("a red cat", 3, 1)
    assert (told["stages"][0]["steps"], told["stages"][0]["guidance"]) == (3, 2.5)
    # It is the picture that the door draws.
    recipe = told["stages"]
    again = model.sample(["a red cat"], num=2, seed=3, recipe=recipe)
    drawn = np.asarray(Image.open(tmp_path / "picture.png"))
    np.testing.assert_array_equal(drawn, again.images[1])


def test_a_stream_goes_through_every_step(serving, door):
    async def go():
        async with serving() as client:
            _, told = await ask(client)
            steps = []
            listening = asyncio.create_task(events(client, told["drawing"]))
            for _ in range(6):
                door.steps.release()
                await asyncio.sleep(0.05)
            for event in await listening:
                if event["state"] == "drawing" and "done" in event:
                    steps.append((event["stage"], event["step"], event["done"]))
            # A slow reader may miss some, never the order.
            assert steps == sorted(steps, key=lambda s: s[2])
            assert len(steps) >= 3

    asyncio.run(go())


def test_one_is_drawn_few_wait_and_the_next_is_refused(serving, door):
    async def go():
        async with serving(waiting=2) as client:
            first, second, third = [
                (await ask(client, seed=seed))[1]["drawing"] for seed in range(3)
            ]
            answer = await client.post("/api/drawings", json=CAT)
            assert answer.status == 429 and "Retry-After" in answer.headers
            assert "queue is full: 2" in (await answer.json())["error"]
            looks = [
                await (await client.get(f"/api/drawings/{i}")).json()
                for i in (second, third)
            ]
            assert [look["place"] for look in looks] == [1, 2]
            # One that waits ends at once, and those behind it move up.
            await client.post(f"/api/drawings/{second}/cancel", json={})
            look = await (await client.get(f"/api/drawings/{second}")).json()
            assert look["state"] == "cancelled"
            look = await (await client.get(f"/api/drawings/{third}")).json()
            assert (look["state"], look["place"]) == ("waiting", 1)
            assert (await ask(client))[0] == 202
            door.open()
            heard = await events(client, first, third)
            states = {e["drawing"]: e["state"] for e in heard}
            assert states == {first: "done", third: "done"}

    asyncio.run(go())
    assert [asked.seed for asked in door.asked[:2]] == [0, 2]


def test_cancelling_keeps_the_stages_that_are_done(serving, door):
    async def go():
        async with serving() as client:
            _, told = await ask(client)
            drawing = told["drawing"]
            door.steps.release(5)  # The base's four, and one of the next stage's.
            await events(client, drawing, until=lambda e: e.get("done") == 5)
            path = f"/api/drawings/{drawing}/cancel"
            answer = await (await client.post(path, json={})).json()
            assert answer == {"cancelled": True}
            door.open()
            last = (await events(client, drawing))[-1]
            assert last["state"] == "cancelled"
            assert [s["name"] for s in last["stages"]] == ["base"]
            base = await client.get(f"/api/drawings/{drawing}/base/0.png")
            assert base.status == 200
            up = await client.get(f"/api/drawings/{drawing}/up/0.png")
            assert up.status == 404
            answer = await (await client.post(path, json={})).json()
            assert answer == {"cancelled": False}
            gone = [{"drawing": "unknown", "state": "gone"}]
            assert await events(client, "unknown") == gone

    asyncio.run(go())


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": "a" * 1001}, "at most 1000 characters, got 1001"),
        ({"prompt": 3}, "prompt must be text"),
        ({"num": 9}, "num must be a number from 1 to 8, got 9"),
        ({"num": True}, "num must be a number"),
        ({"num": 1.5}, "num must be a number"),
        ({"seed": 2**32}, "seed must be a number from 0"),
        ({"colour": 1}, "unknown key 'colour'"),
        ({"stages": "settings.json"}, "stages must be a list of one object a stage"),
        ({"stages": [{}, {}, {}]}, "stages must be at most 2"),
        ({"stages": [{"stage": "base", "steps": 1001}]}, "steps must be at most 1000"),
        ({"stages": [{"stage": "base", "steps": 0}]}, "steps must be >= 1"),
        ({"stages": [{"stage": "top"}]}, "the model's stages are"),
        ({"stages": [{"stage": "base", "solver": "os.system"}]}, "solver must be one"),
        ({"stages": [{"stage": "base", "stpes": 3}]}, "did you mean 'steps'"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_it_waits(serving, asked, named):
    async def go():
        async with serving() as client:
            status, told = await ask(client, **asked)
            assert status == 400 and named in told["error"], told
            assert "\n" not in told["error"]

    asyncio.run(go())


def test_other_bodies_are_refused(serving):
    async def go():
        async with serving(upload=1000) as client:
            post, json_type = client.post, {"Content-Type": "application/json"}
            answer = await post("/api/drawings", data=b"{", headers=json_type)
            assert answer.status == 400
            answer = await post("/api/drawings", data=b"[" * 9999, headers=json_type)
            assert answer.status == 400
            answer = await post("/api/drawings", data={"prompt": "a cat"})
            assert answer.status == 415
            large = b" " * (1 << 19)
            answer = await post("/api/drawings", data=large, headers=json_type)
            assert answer.status == 413
            assert "Too Large" in (await answer.json())["error"]

    asyncio.run(go())


def test_a_failing_drawing_tells_why_and_the_next_is_drawn(serving, door):
    """Too long for the encoder is known only where prompts are embedded."""

    async def go():
        async with serving() as client:
            door.open()
            _, told = await ask(client, prompt="a red cat and a red dog")
            (last,) = (await events(client, told["drawing"]))[-1:]
            assert last["state"] == "failed" and "Shorten" in last["error"]
            assert "and" in last["unknown"]
            _, told = await ask(client)
            assert (await events(client, told["drawing"]))[-1]["state"] == "done"

    asyncio.run(go())


def test_there_are_no_files_but_the_pages(serving):
    async def go():
        async with serving() as client:
            page = await client.get("/")
            assert page.content_type == "text/html"
            assert "script-src 'self'" in page.headers["Content-Security-Policy"]
            assert page.headers["X-Content-Type-Options"] == "nosniff"
            script = await client.get("/page.js")
            assert script.content_type == "text/javascript"
            for path in ("/../app.py", "/%2e%2e/app.py", "/api/drawings/a/base/0.png"):
                answer = await client.get(path)
                assert answer.status == 404 and answer.content_type != "text/html"
                assert answer.headers["X-Content-Type-Options"] == "nosniff"

    asyncio.run(go())


def test_streams_are_bounded(serving, door):
    async def go():
        async with serving(watchers=1) as client:
            _, told = await ask(client)
            name = {"drawing": told["drawing"]}
            async with client.get("/api/events", params=name) as stream:
                assert (await stream.content.readline()).startswith(b"data: ")
                second = await client.get("/api/events", params=name)
                assert second.status == 429
            door.open()
            many = [("drawing", str(i)) for i in range(65)]
            assert (await client.get("/api/events", params=many)).status == 400

    asyncio.run(go())


def test_a_painted_part_is_drawn_anew_and_the_rest_stays(serving, door):
    async def go():
        async with serving() as client:
            door.open()
            mask = Image.new("L", (16, 16), 0)
            mask.paste(255, (0, 0, 16, 5))
            file = io.BytesIO()
            mask.save(file, "PNG")
            edit = {
                "picture": png(),
                "mask": base64.b64encode(file.getvalue()).decode(),
            }
            status, told = await ask(client, edit=edit)
            assert status == 202, told
            last = (await events(client, told["drawing"]))[-1]
            assert last["state"] == "done", last
            answer = await client.get(f"/api/drawings/{told['drawing']}/up/0.png")
            drawn = np.asarray(Image.open(io.BytesIO(await answer.read())))
            assert (drawn[5:] == (200, 10, 10)).all()
            assert (drawn[:5] != (200, 10, 10)).any()

    asyncio.run(go())


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        ({"picture": "no picture"}, "PNG, JPEG or WebP"),
        ({"picture": png(), "mask": png(8, 8, "L")}, "mask must have the picture's"),
        ({"picture": png(), "mask": png(mode="L", value=0)}, "mask is empty"),
        ({"picture": png(), "strength": 2}, "strength must be a number from 0.0 to 1"),
        ({"picture": png(), "resample": 21}, "resample must be a number from 1 to 20"),
        ({"picture": png(), "file": "/etc/passwd"}, "unknown key 'file'"),
    ],
)
def test_what_cannot_be_changed_is_refused(serving, edit, named):
    async def go():
        async with serving() as client:
            status, told = await ask(client, edit=edit)
            assert status == 400 and named in told["error"], told

    asyncio.run(go())
