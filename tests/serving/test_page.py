"""The page in headless Chromium, as a person uses it, with the tiny cascade."""

import asyncio
import io
import json
import os
import re
import shutil
import threading

import pytest
from aiohttp import web
from PIL import Image

from imagen_jax.cascade import picture_files
from imagen_jax.serving import app, asking, guard, limits, queue

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on the path nor in $CHROMIUM"
)
PATIENCE = 120_000  # Milliseconds; a busy machine compiles slowly.


@pytest.fixture(scope="module")
def gate():
    """Steps are drawn while it is open."""
    event = threading.Event()
    event.set()
    return event


@pytest.fixture(scope="module")
def address(model, gate):
    """Where the page is served, from a thread of its own."""
    bounds, ready = limits.Limits(waiting=1), threading.Event()
    found, ended = {}, {}

    def draw(asked, progress):
        def report(moment):
            assert gate.wait(60)
            progress(moment)

        return asking.draw(model, asked, report)

    drawings = queue.Queue(draw, bounds)

    async def serve():
        runner = web.AppRunner(
            app.make(model, drawings, bounds, guard.Guard()), shutdown_timeout=1
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        found["port"] = runner.addresses[0][1]
        ended["loop"], ended["event"] = asyncio.get_running_loop(), asyncio.Event()
        ready.set()
        await ended["event"].wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(30)
    yield f"http://127.0.0.1:{found['port']}/"
    gate.set()
    ended["loop"].call_soon_threadsafe(ended["event"].set)
    thread.join(30)
    drawings.close()


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as started:
        opened = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield opened
        opened.close()


@pytest.fixture
def page(browser, address):
    """The page, which must work offline and without an error in its console."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    wrong, elsewhere = [], []
    opened.on("pageerror", lambda error: wrong.append(error))
    opened.on(
        "request",
        lambda r: (
            r.url.startswith((address, "data:", "blob:")) or elsewhere.append(r.url)
        ),
    )
    opened.goto(address)
    opened.wait_for_selector("body[data-ready]")
    yield opened
    assert not wrong and not elsewhere
    context.close()


def status(page, text):
    """Wait for a status that begins so ("Nothing drawn yet." is not "Drawn")."""
    page.locator("#status", has_text=re.compile(f"^{re.escape(text)}")).wait_for()


def shown_stages(page):
    """The stages whose pictures the first frame has shown, recorded as they come."""
    return page.evaluate("window.stages")


def watch_stages(page):
    page.evaluate(
        """() => {
          window.stages = [];
          new MutationObserver(() => {
            const image = document.querySelector("#pictures img");
            const stage = image?.dataset.stage;
            if (stage && window.stages.at(-1) !== stage) window.stages.push(stage);
          }).observe(document.querySelector("#pictures"),
            { subtree: true, childList: true, attributes: true });
        }"""
    )


def downloaded(page, figure=0):
    with page.expect_download() as download:
        page.locator("figure").nth(figure).get_by_text("Download").click()
    path = download.value.path()
    return picture_files.read_settings(path), download.value.suggested_filename


def test_a_prompt_is_drawn_stage_by_stage_and_downloaded_with_its_settings(page):
    watch_stages(page)
    page.get_by_role("textbox", name="Prompt", exact=True).fill("a red moon")
    page.get_by_label("Seed", exact=True).fill("7")
    page.get_by_label("Pictures").fill("2")
    page.get_by_label("Guidance", exact=True).fill("3.5")
    page.get_by_text("All settings of all stages").click()
    page.get_by_label("steps of up").fill("3")
    page.get_by_label("threshold of base").select_option("static")
    page.keyboard.press("Control+Enter")
    page.get_by_text("tiny never saw: moon").wait_for()
    status(page, "Drawn")
    assert shown_stages(page) == ["base", "up"]
    told, name = downloaded(page, figure=1)
    assert (told["prompt"], told["seed"], told["number"]) == ("a red moon", 7, 1)
    base, up = told["stages"]
    assert (base["guidance"], base["threshold"], up["steps"]) == (3.5, "static", 3)
    assert name == "a-red-moon_7_1_up.png"
    page.locator("figure").nth(1).get_by_text("8 px").click()
    assert downloaded(page, figure=1)[0]["stage"] == "base"

    # Another drawing; then the first one from the history, with all its settings, also
    # after the page was loaded anew.
    page.get_by_role("textbox", name="Prompt", exact=True).fill("a dog")
    page.get_by_role("button", name="Back to the model").click()
    page.get_by_label("Pictures").fill("1")
    page.get_by_role("button", name="Draw", exact=True).click()
    page.locator("#caption", has_text="a dog").wait_for()
    status(page, "Drawn")
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert page.locator("#history li").count() == 2
    page.locator("#history button", has_text="a red moon").click()
    status(page, "Drawn")
    page.locator("figure img").nth(1).wait_for()
    assert page.get_by_label("Guidance", exact=True).input_value() == "3.5"
    assert page.get_by_label("Seed", exact=True).input_value() == "7"
    assert page.locator("#first-threshold").input_value() == "static"
    page.get_by_text("All settings of all stages").click()
    assert page.get_by_label("steps of up").input_value() == "3"


@pytest.mark.slow
def test_waiting_and_running_drawings_are_cancelled_and_a_full_queue_says_so(
    page, gate
):
    page.get_by_role("textbox", name="Prompt", exact=True).fill("a cat")
    draw = page.get_by_role("button", name="Draw", exact=True)
    gate.clear()
    try:
        draw.click()
        page.locator("#history li").nth(0).wait_for()
        draw.click()
        status(page, "Waiting; 1 drawing before this one")
        draw.click()
        page.get_by_role("alert").get_by_text("queue is full: 1").wait_for()
        page.get_by_role("button", name="Cancel", exact=True).click()
        status(page, "Cancelled.")
        page.locator("#history button").nth(1).click()
        page.get_by_role("button", name="Cancel", exact=True).click()
        status(page, "Stopping")
    finally:
        gate.set()
    status(page, "Cancelled")


def test_an_error_of_the_server_is_shown(page):
    page.get_by_role("textbox", name="Prompt", exact=True).fill(
        "a prompt of far too many bytes"
    )
    page.keyboard.press("Control+Enter")
    page.get_by_role("alert").get_by_text("Shorten").wait_for()
    page.get_by_role("textbox", name="Prompt", exact=True).fill("a cat")
    page.get_by_text("All settings of all stages").click()
    page.get_by_label("percentile of up").fill("3")
    page.keyboard.press("Control+Enter")
    page.get_by_role("alert").get_by_text("percentile must be in").wait_for()


def test_a_brush_paints_what_is_drawn_anew(page):
    """On a picture of one's own: what was not painted comes back to the bit."""
    file = io.BytesIO()
    own = Image.effect_noise((16, 16), 80).convert("RGB")
    own.save(file, "PNG")
    page.get_by_role("textbox", name="Prompt", exact=True).fill("a red cat")
    page.locator("#upload").set_input_files(
        {"name": "own.png", "mimeType": "image/png", "buffer": file.getvalue()}
    )
    mask = page.locator("#mask")
    mask.wait_for()
    box = mask.bounding_box()
    mouse = page.mouse
    mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.2 * box["height"])
    mouse.down()
    mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.2 * box["height"], steps=4)
    mouse.up()
    page.get_by_role("button", name="Draw here").click()
    status(page, "Drawn")
    with page.expect_download() as download:
        page.locator("figure").get_by_text("Download").click()
    drawn = Image.open(download.value.path())
    below = (0, 8, 16, 16)
    assert drawn.crop(below).tobytes() == own.crop(below).tobytes()
    assert drawn.tobytes() != own.tobytes()
    # And on what was drawn, with the keys.
    page.get_by_role("button", name="Change…").click()
    mask.wait_for()  # The dialog opens once the picture is read.
    mask.focus()
    for key in ("ArrowDown", "Space", "ArrowDown", "Space"):
        page.keyboard.press(key)
    page.keyboard.press("Control+Enter")
    page.locator("dialog").wait_for(state="hidden")
    page.locator("#history li").nth(1).wait_for()
    status(page, "Drawn")
    assert json.loads(page.evaluate("sessionStorage.imagen_jax"))[0]["asked"]["changed"]


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 900)])
def test_nothing_is_wider_than_the_page(page, width, height):
    page.set_viewport_size({"width": width, "height": height})
    page.get_by_text("All settings of all stages").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    draw = page.get_by_role("button", name="Draw", exact=True).bounding_box()
    assert draw["y"] + draw["height"] <= height
