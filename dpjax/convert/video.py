"""Reads chosen frames of an MP4.

A film's frames are listed by its packets, without decoding them. Decoding starts at the last key
picture that is shown before the first wanted frame, and one key picture further back where
pictures that depend on an earlier group are missing (open groups of HEVC, H.264 and MPEG-4).
"""

from __future__ import annotations

from collections.abc import Iterator
import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dpjax.convert import pairing
from dpjax.convert.source import as_user_error
from dpjax.core import extras
from dpjax.core.errors import UserError

if TYPE_CHECKING:
    import av

log = logging.getLogger("dpjax")


class Film(NamedTuple):
    """What a film's packets tell about its frames.

    ticks: [F] ascending, when each frame is shown, in units of the stream's time base.
    times: [F] the same in s.
    keys: (shown at, decoded at) of the key pictures in ticks, in the order of the file.
    size: height and width in px.
    """

    ticks: np.ndarray
    times: np.ndarray
    keys: tuple[tuple[int, int], ...]
    size: tuple[int, int]


def frames(path: Path, times: np.ndarray, fps: float, size: tuple[int, int]) -> np.ndarray:
    """The frames uint8 [T, H, W, 3] of the steps at times [T], in s.

    Args: see `pairing.pair` and `read_frames`. Logs what `pair` notes.
    """
    try:
        indices, notes = pairing.pair(times, open_film(path).times, fps)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    for text in notes.values():
        log.warning("%s: %s", path, text)
    return read_frames(path, indices, size)


def open_film(path: Path) -> Film:
    """Lists the frames of a film; raises a UserError if there are none."""
    with as_user_error(f"{path}: can't be decoded"):
        return _open_film(path, path.stat().st_mtime_ns)


# In v3 the episodes of a film are read one after the other.
@functools.lru_cache(maxsize=16)
def _open_film(path: Path, modified: int) -> Film:
    """modified: the file's modification time, so that a file that was changed is read again."""
    del modified
    limit = path.stat().st_size  # a packet has at least one byte
    ticks, keys = [], []
    with _container(path) as container:
        stream = _stream(path, container)
        for packet in container.demux(stream):
            # The last packet is empty, and those that an edit list cuts off are never shown.
            if packet.pts is None or packet.is_discard:
                continue
            ticks.append(packet.pts)
            if packet.is_keyframe:
                keys.append((packet.pts, packet.pts if packet.dts is None else packet.dts))
            if len(ticks) > limit:
                raise UserError(f"{path}: expected frames of at least 1 byte, got smaller ones.")
        if not ticks or stream.time_base is None:
            raise UserError(f"{path}: expected frames with times, got none.")
        sorted_ticks = np.sort(np.array(ticks, np.int64))
        times = sorted_ticks * float(stream.time_base)
        size = stream.codec_context.height, stream.codec_context.width
    return Film(sorted_ticks, times, tuple(keys), size)


def read_frames(path: Path, indices: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The frames uint8 [T, H, W, 3] at increasing indices [T] of a film.

    size: height and width that the film must have, in px.
    Raises a UserError if a frame can't be decoded.
    """
    film = open_film(path)
    # Compared before any frame is decoded, since a hostile header may claim any size.
    if film.size != size:
        raise UserError(
            f"{path}: expected {size[0]} x {size[1]} px by info.json, got {film.size[0]} x "
            f"{film.size[1]}."
        )
    wanted = film.ticks[indices]
    problem: UserError | None = None
    for start in _starts(film, int(wanted[0])):
        try:
            with as_user_error(f"{path}: can't be decoded"):
                pixels, there = _decode(path, wanted, start, size)
        except UserError as error:
            # Pictures before the key picture may be broken from here, and whole from further back.
            problem = error
            continue
        if there.all():
            return pixels
        problem = UserError(
            f"{path}: expected frame {indices[np.argmin(there)]}, got none, as for "
            f"{np.sum(~there)} of {len(there)} steps: it is cut. Copy it again."
        )
    assert problem is not None, "there is always one start"
    raise problem


def _starts(film: Film, tick: int) -> Iterator[int | None]:
    """Where to start decoding to see the frame at `tick`: ticks to seek to; None: the beginning.

    First the last key picture shown by then, then the one before it, then the beginning.
    """
    # In the order of the file. A picture that is shown after a key picture never depends on what
    # precedes the key picture, so the first of these is right in every film that keeps the rules.
    before = [decoded for shown, decoded in film.keys if shown <= tick]
    # The first key picture is where the file begins.
    yield from reversed(before[1:][-2:])
    yield None


def _decode(
    path: Path, wanted: np.ndarray, start: int | None, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes the frames shown at ticks `wanted` [T]: uint8 [T, H, W, 3], and [T] which it met."""
    pixels = np.zeros((len(wanted), *size, 3), np.uint8)
    there = np.zeros(len(wanted), bool)
    with _container(path) as container:
        stream = _stream(path, container)
        # Without this option FFmpeg conceals damage in H.264 frames silently. AV1 has no such
        # check.
        stream.codec_context.options = {"err_detect": "explode"}
        # Several threads, over frames or slices, whichever the codec supports.
        stream.thread_type = "AUTO"
        if start is not None:
            container.seek(start, stream=stream)
        for frame in container.decode(stream):
            # A frame without a time can't be assigned to a step.
            if frame.pts is None or frame.pts < wanted[0]:
                continue
            steps = slice(*np.searchsorted(wanted, [frame.pts, frame.pts + 1]))
            if steps.start < steps.stop:
                pixels[steps] = _as_rgb(path, frame)
                there[steps] = True
            # Frames come in the order in which they are shown.
            if frame.pts >= wanted[-1]:
                break
    return pixels, there


def _as_rgb(path: Path, frame: av.VideoFrame) -> np.ndarray:
    """uint8 [H, W, 3]; raises a UserError for depth, which has more than 8 bits in one channel."""
    components = frame.format.components
    if len(components) == 1 and components[0].bits > 8:
        raise UserError(
            f"{path}: expected 8-bit images, got {frame.format.name}: depth is not read, leave the "
            "camera out."
        )
    return frame.to_ndarray(format="rgb24")


def _container(path: Path) -> av.container.InputContainer:
    """Opens a film. Use it as a context manager."""
    av = extras.require("av", extra="data")
    # The demuxer is fixed to MP4. If it were chosen by content, the file could be a playlist, whose
    # demuxer opens other files or reads from the network.
    return av.open(f"file:{path}", format="mp4")


def _stream(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    if not container.streams.video:
        raise UserError(f"{path}: expected a video stream, got none.")
    return container.streams.video[0]
