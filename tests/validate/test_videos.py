"""The box reader against files made by hand and by ffmpeg, cut anywhere."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from breaking import check, codes_of, mutation, write_broken
from hypothesis import given
from hypothesis import strategies as st
from mp4_files import box, mp4

from opentau_prep.errors import DataError
from opentau_prep.validate.mp4 import VideoFacts, read_video


def facts(content: bytes) -> VideoFacts:
    return read_video(lambda start, stop: content[start:stop], len(content), "x.mp4")


@pytest.mark.parametrize("moov_first", [False, True])
def test_read_video_gives_what_was_written(moov_first: bool) -> None:
    found = facts(mp4(45, 30, size=(64, 48), codec=b"hvc1", moov_first=moov_first))

    assert found == VideoFacts(45, 1.5, 64, 48, "hevc")
    assert found.fps == 30


def test_read_video_of_uneven_steps_has_their_mean_rate() -> None:
    found = facts(mp4(30, 30, steps=[(20, 512), (10, 1024)]))

    assert (found.frames, round(found.seconds, 6)) == (30, round((20 * 512 + 10 * 1024) / 15360, 6))


@pytest.mark.parametrize("moov_first", [False, True])
def test_read_video_cut_at_any_byte_is_refused(moov_first: bool) -> None:
    whole = mp4(12, 10, moov_first=moov_first)

    for length in range(len(whole)):
        with pytest.raises(DataError):
            facts(whole[:length])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
        (b"RIFF....AVI LIST", "no MP4"),
        (mp4(9, 10, handler=b"soun"), "holds no video"),
        (mp4(0, 10), "holds no frame"),
        (mp4(9, 10, steps=[(8, 1536)]), "8 frames have times, 9 have data"),
        (box(b"ftyp", b"isom", bytes(4)) + box(b"moov", b"\\xff" * 40), "damaged index"),
    ],
)
def test_read_video_names_what_is_wrong(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        facts(content)


@given(st.data())
def test_read_video_of_damaged_bytes_raises_data_error_or_reads(data: st.DataObject) -> None:
    content = bytearray(mp4(5, 10, moov_first=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))

    with contextlib.suppress(DataError):
        assert facts(bytes(content)).frames > 0


FFMPEG = shutil.which("ffmpeg")
VARIANTS = {
    "h264": "-c:v libx264 -bf 3",
    "faststart": "-c:v libx264 -movflags +faststart",
    "fragments": "-c:v libx264 -g 10 -movflags frag_keyframe+empty_moov",
    "mpeg4": "-c:v mpeg4",
}


@pytest.mark.skipif(FFMPEG is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("variant", VARIANTS)
def test_read_video_agrees_with_ffprobe(variant: str, tmp_path: Path) -> None:
    file = tmp_path / "x.mp4"
    source = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=30:duration=1.5"]
    options = VARIANTS[variant].split()
    made = subprocess.run(
        ["ffmpeg", "-v", "error", *source, *options, str(file)], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip("this ffmpeg lacks the encoder")
    probe = subprocess.run(
        ["ffprobe", "-v", "error", "-count_frames", "-of", "json", "-show_streams", str(file)],
        check=True,
        capture_output=True,
    )
    stream = json.loads(probe.stdout)["streams"][0]

    found = facts(file.read_bytes())

    assert found.frames == int(stream["nb_read_frames"])
    assert found.codec == stream["codec_name"]
    assert (found.width, found.height) == (stream["width"], stream["height"])
    assert found.fps == pytest.approx(30)


def test_validate_reads_the_ends_of_videos_only(tmp_path: Path) -> None:
    from opentau_prep.storage import LocalStorage

    big = tmp_path / "big.mp4"
    whole = mp4(200, 10)
    stretched = whole.replace(
        (200 + 8).to_bytes(4, "big") + b"mdat" + bytes(200),
        (3_000_000 + 8).to_bytes(4, "big") + b"mdat" + bytes(3_000_000),
    )
    big.write_bytes(stretched)
    storage, read = LocalStorage(tmp_path), []

    def part(start: int, stop: int) -> bytes:
        read.append(stop - start)
        return storage.read_range("big.mp4", start, stop)

    assert read_video(part, len(stretched), "big.mp4").frames == 200
    assert sum(read) < 10_000


def test_validate_v3_episode_order_in_video_file_is_checked(tmp_path: Path) -> None:
    write_broken(tmp_path / "set", mutation("clean", "", "v3.0", episodes_per_file=6))

    assert codes_of(check(tmp_path / "set", deep=False)) == set()
