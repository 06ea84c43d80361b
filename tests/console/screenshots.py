"""`make screenshots`: every page of the console as a picture, at a desk and on a phone, light and dark.

Writes docs/images/<page>-<desktop|phone>-<light|dark>.png. pngquant, if it is there, makes them small.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "service"), str(HERE.parent)]

from scene import console_scene, log_in  # noqa: E402  # found by the line above
from stage import PLAIN, populated, stops  # noqa: E402

from chromium import chromium  # noqa: E402

IMAGES = HERE.parents[1] / "docs" / "images"
SIZES = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}
_TALLEST_PX = {"desktop": 1400, "phone": 1800}


def main() -> None:
    """Take them all."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as root, chromium() as browser, console_scene(Path(root)) as scene:
        stage = populated(scene, PLAIN)
        tour = stops(stage)
        for size, viewport in SIZES.items():
            for who in sorted({stop.who for stop in tour}):
                context = browser.new_context(viewport=viewport, locale="en-GB", timezone_id="Europe/Zurich")  # type: ignore[arg-type]
                page = context.new_page()
                log_in(page, scene, who)
                for stop in tour:
                    if stop.who != who:
                        continue
                    page.goto(scene.url + stop.path)
                    page.locator("#main h1").wait_for()
                    page.wait_for_function("() => window.did_handshake === true")
                    page.evaluate("document.fonts.ready")
                    for theme in ("light", "dark"):
                        page.emulate_media(color_scheme=theme, reduced_motion="reduce")  # type: ignore[arg-type]
                        page.wait_for_function(f"() => document.body.classList.contains('body--{theme}')")
                        file = IMAGES / f"{stop.name}-{size}-{theme}.png"
                        height = min(page.evaluate("document.documentElement.scrollHeight"), _TALLEST_PX[size])
                        clip = {"x": 0, "y": 0, "width": viewport["width"], "height": max(height, viewport["height"])}
                        page.screenshot(path=file, full_page=True, clip=clip, scale="css", animations="disabled")  # type: ignore[arg-type]
                context.close()
    _shrink()


def _shrink() -> None:
    files = sorted(IMAGES.glob("*.png"))
    pngquant = shutil.which("pngquant")
    if pngquant:
        options = ["--force", "--ext=.png", "--nofs", "--speed=1", "--strip", "32"]
        subprocess.run([pngquant, *options, "--", *map(str, files)], check=True)
    else:
        print("These are large: install pngquant (Debian: apt-get install pngquant) before you commit them.")
    total_kib = sum(file.stat().st_size for file in files) / 1024
    print(f"{len(files)} pictures in {IMAGES}, {total_kib:.0f} KiB")


if __name__ == "__main__":
    main()
