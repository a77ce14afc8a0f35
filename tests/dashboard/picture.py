"""The page that draws the dashboard, and its picture."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from dashboard.panels import COLUMN_PIXELS

__all__ = ["draw"]

PAGE = Path(__file__).parent / "page"
CACHE = Path.home() / ".cache" / "ext-authz" / "dashboard"
INSTALL_SECONDS = 600
SETTLE_MILLISECONDS = 8_000
"""Of the browser's own clock: fonts, layout and charts."""
GRID_PIXELS = 38
BAR_PIXELS = 60


def draw(answers: dict[str, Any], target: Path) -> None:
    """Write `answers`, drawn, to `target`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _bundle(folder)
        # `<` would end the script
        script = json.dumps(answers).replace("<", "\\u003c")
        style = "body{margin:0 4px;overflow:hidden}"
        (folder / "index.html").write_text(
            f"<!doctype html><meta charset=utf-8><link rel=stylesheet href=page.css><style>{style}</style>"
            f"<div id=root></div><script>window.answers = {script}</script><script src=page.js></script>"
        )
        rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in answers["panels"])
        _shoot(folder / "index.html", target, 24 * COLUMN_PIXELS + 8, rows * GRID_PIXELS + BAR_PIXELS)


def _bundle(folder: Path) -> None:
    """`page.js` and `page.css`; the packages are installed once, outside the repository, and run no scripts of theirs."""
    npm = _tool("npm", "node")
    CACHE.mkdir(parents=True, exist_ok=True)
    for file in PAGE.iterdir():
        shutil.copy(file, CACHE / file.name)
    options = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--legacy-peer-deps", "--silent")
    subprocess.run([npm, "install", *options], cwd=CACHE, check=True, timeout=INSTALL_SECONDS)
    command = [
        str(CACHE / "node_modules" / ".bin" / "esbuild"),
        "page.jsx",
        "--bundle",
        "--minify-whitespace",
        "--jsx=automatic",
        '--define:process.env.NODE_ENV="development"',
        "--loader:.woff=dataurl",
        "--loader:.woff2=dataurl",
        "--loader:.svg=dataurl",
        "--loader:.ttf=empty",
        "--log-level=error",
        f"--outfile={folder / 'page.js'}",
    ]
    subprocess.run(command, cwd=CACHE, check=True, timeout=INSTALL_SECONDS)


def _shoot(page: Path, target: Path, width: int, height: int) -> None:
    chromium = _tool("chromium", "chromium")
    with tempfile.TemporaryDirectory() as profile:
        command = [
            chromium,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
            f"--virtual-time-budget={SETTLE_MILLISECONDS}",
            f"--screenshot={target}",
            page.as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0 or not target.exists():
        raise AssertionError(done.stderr)


def _tool(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise SystemExit(f"{name} is not installed (Debian: apt-get install {package})")
    return path
