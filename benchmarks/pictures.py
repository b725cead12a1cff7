"""Every image of README and docs, made anew from a demo: synthesis sheet, report, app, timeline of two people.

    python -m benchmarks.pictures --root demo/toy --workdir demo/workdir --data_dir demo/tfds --out docs/images

ROOT holds the drawn videos, WORKDIR the detector that `launch/demo.sh` trained on them. Report and app are shown by
Chromium (`pip install -e .[test,app]`, and `chromium` on the PATH); app and timeline need the models that find faces.
An image that is larger than `LARGEST` is an error. `--only=report,app` makes some of them.
"""

import argparse
import contextlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import PIL.Image

from benchmarks import people, synthesis_sheet
from msddf_jax import inference, paths, predict, report
from msddf_jax.faces import video
from msddf_jax.statistics import novelty, verdict

LARGEST = 400_000  # bytes
# What fits into a page of documentation and can still be read.
REGIONS, FACES = ("both_eyes", "nose", "mouth", "hull"), 2
# The second test pair: the first is far from all that the demo's detector was measured on, and gets no verdict.
PAIR = 1
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WAIT = 120_000  # milliseconds at most until a page shows what is waited for


def draw_synthesis(args, out) -> None:
    """The forgeries that a train step makes: synthesis.jpg."""
    save(synthesis_sheet.make_sheet(args.root, regions=REGIONS, faces=FACES), out / "synthesis.jpg")


def draw_report(args, out) -> None:
    """The first screen of the report, as a desktop and as a phone show it: report.png, report_phone.png."""
    with tempfile.TemporaryDirectory() as folder:
        page = report.write_report(
            [args.workdir], pathlib.Path(folder) / "report.html", mistakes=0, data_dir=args.data_dir
        )
        with browser() as running:
            for name, width, height in (("report", 1000, 860), ("report_phone", 390, 844)):
                shown = running.new_page(viewport={"width": width, "height": height})
                shown.goto(page.as_uri())
                save(shown.screenshot(), out / f"{name}.png")


def draw_app(args, out) -> None:
    """The page after a drawn fake was dropped on it: app.jpg."""
    target, source = test_pairs(args.root)[PAIR]
    with running_app(args.workdir) as address, browser() as running:
        shown = running.new_page(viewport={"width": 900, "height": 900})
        shown.goto(address)
        shown.locator("#upload input[type=file]").wait_for(state="attached", timeout=WAIT)
        shown.locator("#upload input[type=file]").set_input_files(fake_file(args.root, target, source))
        shown.get_by_role("status").filter(has_text="The detector").wait_for(timeout=WAIT)
        # Until every image of the answer is there.
        shown.wait_for_function("[...document.querySelectorAll('#result img')].every(i => i.complete)", timeout=WAIT)
        below = shown.get_by_role("heading", name="What the score does not mean").bounding_box()
        clip = {"x": 0, "y": 0, "width": 900, "height": below["y"] if below else 1200}
        save(shown.screenshot(full_page=True, clip=clip), out / "app.jpg")


def draw_timeline(args, out) -> None:
    """What `predict` draws of a video with a real person and a fake one: timeline.png."""
    pairs = test_pairs(args.root)
    (target, source), (other, _) = pairs[PAIR], pairs[PAIR + 1]
    real = people.read(pathlib.Path(args.root) / f"original_sequences/youtube/c23/videos/{other}.mp4")
    frames = people.put_beside(real, people.read(fake_file(args.root, target, source)))
    model = inference.load_for_inference(args.workdir)
    aggregate = model.config.get("aggregate", "mean")
    with tempfile.TemporaryDirectory() as folder:
        clip = pathlib.Path(folder) / "two_people.mp4"
        # As slow as eight drawn frames can be looked at.
        video.write_video(clip, frames, fps=8, crf=8)
        (record,) = predict.predict_files(
            model,
            [clip],
            pathlib.Path(folder) / "out",
            calibration=verdict.find_calibration(args.workdir, model, aggregate),
            fitted=novelty.find(args.workdir, model),
            aggregate=aggregate,
            max_overlays=0,
        )
        if len(record.get("people", ())) != 2:
            raise ValueError(f"expected two people in the clip of {other} and {target}_{source}, got {record}")
        save((pathlib.Path(folder) / "out" / record["timeline"]).read_bytes(), out / "timeline.png")


IMAGES = {"synthesis": draw_synthesis, "report": draw_report, "app": draw_app, "timeline": draw_timeline}


def save(image, path) -> None:
    """Write uint8 RGB [H, W, 3], or the bytes of a PNG, as the name says: .jpg, or .png with a palette of 256 colours.

    Raises ValueError where the file is larger than `LARGEST`.
    """
    image = PIL.Image.open(io.BytesIO(image)) if isinstance(image, bytes) else PIL.Image.fromarray(np.asarray(image))
    image = image.convert("RGB")
    if path.suffix == ".png":
        image.quantize(256).save(path, optimize=True)
    else:
        image.save(path, quality=85, optimize=True)
    size = path.stat().st_size
    if size > LARGEST:
        raise ValueError(f"{path} has {size:,} bytes, at most {LARGEST:,} are for an image")
    print(f"{path}: {image.width} x {image.height}, {size // 1000} kB")


def test_pairs(root) -> list[tuple[str, str]]:
    """(target, source) of the fakes of the test split."""
    return [tuple(pair) for pair in json.loads((pathlib.Path(root) / "test.json").read_text())]


def fake_file(root, target, source) -> pathlib.Path:
    """A forgery by a method that the demo trains on."""
    return pathlib.Path(root) / f"manipulated_sequences/ToyNeural/c23/videos/{target}_{source}.mp4"


@contextlib.contextmanager
def browser():
    """A running Chromium. Raises FileNotFoundError where there is none on the PATH."""
    from playwright import sync_api  # not above: the other images do without

    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise FileNotFoundError(f"no {' or '.join(BROWSERS)} on the PATH: apt-get install chromium")
    # In a container Chromium's own sandbox has no user namespace; the pages are our own.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with (
        sync_api.sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=program, args=arguments) as running,
    ):
        yield running


@contextlib.contextmanager
def running_app(workdir):
    """The address of the app, in a process of its own, on a free port."""
    command = [sys.executable, "-m", "msddf_jax.app", "--workdir", str(workdir), "--port=0", "--num_frames=8"]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            line = process.stdout.readline()
            address = next((word for word in line.split() if word.startswith("http")), None)
            if address is None:
                process.wait(timeout=60)
                errors.seek(0)
                raise OSError(f"the app did not start: {line}{errors.read()[-2000:]}")
            yield address
        finally:
            process.terminate()
            process.wait(timeout=60)


def main() -> None:
    """Make the images. Exit code 1 with one line where one cannot be made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=paths.expand, required=True, help="folder of the drawn videos")
    parser.add_argument("--workdir", type=paths.expand, required=True, help="folder of the demo's detector")
    parser.add_argument("--data_dir", type=paths.expand, help="built data sets, if not where the config says")
    parser.add_argument("--out", type=paths.expand, default="docs/images", help="folder for the images")
    parser.add_argument("--only", default=",".join(IMAGES), help=f"comma-separated, of {', '.join(IMAGES)}")
    args = parser.parse_args()
    names, out = args.only.split(","), pathlib.Path(args.out)
    try:
        if unknown := sorted(set(names) - set(IMAGES)):
            raise ValueError(f"--only names {', '.join(unknown)}, allowed: {', '.join(IMAGES)}")
        out.mkdir(parents=True, exist_ok=True)
        for name in names:
            IMAGES[name](args, out)
    except (OSError, ValueError, ImportError) as error:
        sys.exit(f"benchmarks.pictures: {error}")


if __name__ == "__main__":
    main()
