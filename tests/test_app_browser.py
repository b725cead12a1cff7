"""The app as a person sees it: headless Chromium drops a toy video and rubbish, at desktop and phone width."""

import json
import os
import shutil

import pytest

pytest.importorskip("gradio", reason="the app needs Gradio: pip install msddf_jax[app]")
pytest.importorskip("playwright", reason="no Playwright: pip install msddf_jax[test]")
from app_server import make_workdir, running_app
from playwright import sync_api

from data_prep.toy import render
from msddf_jax.faces import video

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH: apt-get install chromium")
WAIT = 120_000  # milliseconds at most; a check takes one or two seconds on an idle machine


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    root = tmp_path_factory.mktemp("browser")
    workdir = make_workdir(root / "run")
    with running_app(workdir, root / "temporary", max_bytes=2 * 2**20) as (url, _, folder):
        yield url
        assert not list(folder.iterdir())


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        # In a container Chromium's own sandbox has no user namespace; the page is our own.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        with playwright.chromium.launch(executable_path=BROWSER, args=arguments) as running:
            yield running


@pytest.fixture(scope="module")
def toy_clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "toy <b>.mp4"
    video.write_video(path, render.render_video(0, 3, 8, 256)[2].frames, fps=8)
    return path


def open_page(browser, address, width, height):
    """A page, and lists of what went wrong on it and of the other machines that it asked for."""
    page, wrong, elsewhere = browser.new_page(viewport={"width": width, "height": height}), [], []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: elsewhere.append(request.url) if not local(request.url, address) else None)
    page.goto(address)
    page.get_by_role("heading", name="Is this face manipulated?").wait_for(timeout=WAIT)
    return page, wrong, elsewhere


def local(url, address):
    return url.startswith((address, "data:", "blob:"))


def drop(page, path):
    page.locator("#upload input[type=file]").set_input_files(str(path))


@pytest.mark.parametrize("name, width, height", [("desktop", 1280, 900), ("phone", 390, 844)])
def test_a_toy_video_and_rubbish(name, width, height, browser, address, toy_clip, tmp_path):
    rubbish = tmp_path / "rubbish.mp4"
    rubbish.write_bytes(b"<script>document.title = 'taken over'</script>")
    page, wrong, elsewhere = open_page(browser, address, width, height)

    drop(page, rubbish)
    error = page.get_by_role("alert").filter(has_text="Not checked")
    error.wait_for(timeout=WAIT)
    assert "no file that can be checked" in error.inner_text() and "unsupported_type" in error.inner_text()
    page.screenshot(path=tmp_path / f"{name}_error.png", full_page=True)

    drop(page, toy_clip)
    verdict = page.get_by_role("status").filter(has_text="The detector calls this video")
    verdict.wait_for(timeout=WAIT)
    assert "8 of 8 sampled frames" in verdict.inner_text() and "not calibrated" in verdict.inner_text()
    assert page.locator(".msddf-chart i").count() == 8 and page.locator("figure").count() == 6
    assert page.get_by_text("What the score does not mean").is_visible()
    images = page.locator("#result img").evaluate_all("all => all.map(i => i.complete && i.naturalWidth > 0)")
    assert len(images) == 12 and all(images)
    page.screenshot(path=tmp_path / f"{name}.png", full_page=True)

    # Nothing is cut off at the side, nothing of the file became part of the page, nobody else was asked.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.title() == "Is this face manipulated?"
    assert not wrong and not elsewhere, json.dumps([wrong, elsewhere])
    page.close()


def test_a_file_that_is_too_large_is_told_before_it_is_sent(browser, address, tmp_path):
    page, _, _ = open_page(browser, address, 1280, 900)
    (tmp_path / "large.mp4").write_bytes(bytes(3 * 2**20))
    drop(page, tmp_path / "large.mp4")
    page.get_by_text("maximum allowed size").first.wait_for(timeout=WAIT)
    page.close()
