"""Pictures of sections, for papers and chats: the page itself, as Chromium or Chrome draws it."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import ArtifactError, ConfigError
from opentau_prep.report.page import SECTIONS

__all__ = ["check_png", "find_browser", "write_pngs"]

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
    "--disable-background-networking", "--disable-extensions", "--disable-sync", "--mute-audio",
)  # fmt: skip
_WIDTH, _MOST = 1240, 12_000
_TIMEOUT_S = 60
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def check_png(sections: Sequence[str]) -> None:
    """Raise `ConfigError` for a section that does not exist, or where there is no browser."""
    known = ["verdict", *SECTIONS]
    for section in sections:
        if section not in known:
            raise ConfigError(
                f"there is no section {section!r}", where="--png", hint=f"Use {', '.join(known)}."
            )
    if sections and find_browser() is None:
        raise ConfigError(
            "pictures need Chromium or Chrome, and there is none on the PATH",
            where="--png",
            hint="Install it (Debian: `apt-get install chromium`), or print the page.",
        )


def find_browser() -> str | None:
    """Return the path of a browser that draws pages, None where there is none."""
    return next((found for name in _BROWSERS if (found := shutil.which(name))), None)


def write_pngs(page: Path, sections: Sequence[str]) -> tuple[Path, ...]:
    """Write `<page>-<section>.png` for each section, dated, and return the files.

    Raises:
        ArtifactError: The browser failed, or a file cannot be written.
    """
    return tuple(_write(page, section) for section in dict.fromkeys(sections))


def _write(page: Path, section: str) -> Path:
    out = page.with_name(f"{page.stem}-{section}.png")
    with tempfile.TemporaryDirectory(prefix="opentau-prep-") as folder:
        alone, shot = Path(folder) / "page.html", Path(folder) / "shot.png"
        alone.write_text(_alone(page.read_text("utf-8"), section), encoding="utf-8")
        words = [
            str(find_browser()), *_FLAGS, f"--user-data-dir={folder}/profile",
            f"--window-size={_WIDTH},{_MOST}", f"--screenshot={shot}", alone.as_uri(),
        ]  # fmt: skip
        try:
            subprocess.run(words, capture_output=True, timeout=_TIMEOUT_S, check=True)
            content = _cropped(shot.read_bytes())
        except (OSError, subprocess.SubprocessError, ValueError, zlib.error) as error:
            raise ArtifactError(
                f"the browser drew no picture ({type(error).__name__})", where=str(out)
            ) from error
    try:
        out.write_bytes(content)
    except OSError as error:
        raise ArtifactError(f"cannot be written ({error.strerror})", where=str(out)) from error
    return out


def _alone(content: str, section: str) -> str:
    """Return the page with one section shown and a date below it, without script and policy."""
    head, _, body = content.partition("<body>")
    start = body.index(f'<section id="{section}"')
    end = body.index("</section>", start) + len("</section>")
    lines = [line for line in head.splitlines() if "Content-Security-Policy" not in line]
    dated = time.strftime("%Y-%m-%d")
    title = head.partition("<title>")[2].partition("</title>")[0]
    foot = f'<footer class="dim small">{title} · {dated}</footer>'
    return "\n".join([*lines, "<body>", body[start:end], foot, "</body></html>"])


def _cropped(data: bytes) -> bytes:
    """Return a screenshot without the empty rows below its content."""
    pixels = _decode(data)
    row = pixels.reshape(len(pixels), -1)
    used = np.flatnonzero((row != row[-1]).any(axis=1))
    kept = pixels[: (int(used[-1]) + 17) if used.size else len(pixels)]
    return _encode(kept)


def _decode(data: bytes) -> NDArray[np.uint8]:
    """Return (H, W, C) of an 8-bit PNG without interlacing, which is what browsers write."""
    if not data.startswith(_SIGNATURE):
        raise ValueError("not a PNG")
    at, parts, size = len(_SIGNATURE), [], (0, 0)
    channels = 4
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        chunk = data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunk)
            if depth != 8 or colour not in (2, 6) or interlaced:
                raise ValueError("another kind of PNG")
            size, channels = (height, width), 3 if colour == 2 else 4
        elif kind == b"IDAT":
            parts.append(chunk)
        at += length + 12
    height, width = size
    rows: NDArray[np.uint8] = np.frombuffer(zlib.decompress(b"".join(parts)), np.uint8).reshape(
        height, -1
    )
    return _unfiltered(rows[:, 0], rows[:, 1:].reshape((height, width, channels)))


def _unfiltered(filters: NDArray[np.uint8], rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Undo the filters of a PNG's rows. Source: PNG specification, section 9."""
    out = rows.copy()
    above = np.zeros_like(out[0])
    for y, kind in enumerate(filters.tolist()):
        line = out[y]
        if kind == 1:
            line[:] = np.cumsum(line, axis=0, dtype=np.uint8)
        elif kind == 2:
            line += above
        elif kind in (3, 4):
            left, upper = np.zeros(line.shape[1], np.int16), np.zeros(line.shape[1], np.int16)
            for x in range(len(line)):
                up = above[x].astype(np.int16)
                if kind == 3:
                    guess = (left + up) // 2
                else:
                    p = left + up - upper
                    a, b, c = abs(p - left), abs(p - up), abs(p - upper)
                    guess = np.where((a <= b) & (a <= c), left, np.where(b <= c, up, upper))
                left = (line[x].astype(np.int16) + guess) & 0xFF
                line[x] = left
                upper = up
        above = line
    return np.asarray(out)


def _encode(pixels: NDArray[np.uint8]) -> bytes:
    height, width, channels = pixels.shape
    up = np.concatenate([pixels[:1], pixels[1:] - pixels[:-1]]).reshape(height, -1)
    rows = np.concatenate([np.full((height, 1), 2, np.uint8), up], axis=1)
    rows[0, 0] = 0
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 6, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )
