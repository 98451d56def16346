"""Films: every frame from every start, also in groups of pictures that are open."""

import av
import numpy as np
import pytest

from dpjax.convert import video
from dpjax.core.errors import UserError

COUNT = 40
SIZE = (64, 96)


def number_of(pixels):
    """The numbers of frames [T, H, W, 3] that `write` has drawn."""
    thirds = pixels[:, 16:48, [16, 48, 80]].astype(float).mean((1, 3))
    return np.rint((thirds - 20) / 24).astype(int) @ [1, 9, 81]


def write(path, codec, options, pix_fmt="yuv420p"):
    """An mp4 of COUNT frames, whose three grey thirds are the digits of its number."""
    digits = np.arange(COUNT)[:, None] // [1, 9, 81] % 9
    grey = np.repeat(20 + 24 * digits, SIZE[1] // 3, axis=1).astype(np.uint8)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = SIZE
        stream.pix_fmt = pix_fmt
        stream.options = options
        for t in range(COUNT):
            image = np.broadcast_to(grey[t, None, :, None], (*SIZE, 3))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts = t
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx265", {"g": "10", "crf": "4", "x265-params": "log-level=none"}),
        ("libx265", {"g": "2", "crf": "4", "x265-params": "log-level=none"}),
        ("libx264", {"g": "6", "crf": "4", "bf": "2", "x264-params": "open-gop=1"}),
        ("libx264", {"g": "10", "crf": "4"}),
        ("mpeg4", {"g": "6", "bf": "2", "qscale": "2"}),
    ],
    ids=["hevc 10", "hevc 2", "h264 open", "h264 closed", "mpeg4"],
)
def test_every_start_shows_its_frames(tmp_path, codec, options, caplog):
    film = write(tmp_path / "film.mp4", codec, options)
    for first in range(COUNT - 4):
        pixels = video.read_frames(film, np.arange(first, first + 5), SIZE)
        np.testing.assert_array_equal(number_of(pixels), np.arange(first, first + 5))
    assert not caplog.records


def test_frames_by_times_and_what_is_said(tmp_path, caplog):
    film = write(tmp_path / "film.mp4", "libx264", {"g": "10", "crf": "4"})
    pixels = video.frames(film, np.array([0.5, 0.9, 1.7]), 10, SIZE)
    np.testing.assert_array_equal(number_of(pixels), [5, 9, 17])
    assert "film.mp4: 40 frames for 3 rows" in caplog.text
    with pytest.raises(UserError, match=r"film\.mp4: 40 frames for 41 rows"):
        video.frames(film, np.arange(41) / 10, 10, SIZE)


def test_depth_is_not_squeezed_into_eight_bits(tmp_path):
    film = tmp_path / "film.mp4"
    options = {"x265-params": "log-level=none"}
    write(film, "libx265", options, pix_fmt="gray12le")
    with pytest.raises(UserError, match="expected 8-bit images, got gray12le: depth is not read"):
        video.read_frames(film, np.arange(3), SIZE)
