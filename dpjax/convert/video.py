"""Reads the frames of an MP4 that are nearest to given times."""

from __future__ import annotations

from collections.abc import Iterator
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpjax.convert.source import as_user_error
from dpjax.core import extras
from dpjax.core.errors import UserError

if TYPE_CHECKING:
    import av

# Seconds between a frame and its time; above this a warning is logged. Smaller differences are
# rounding: LeRobot's tables have times in float32, and videos count time in ticks.
TOLERANCE = 1e-3

log = logging.getLogger("dpjax")


def read_frames(path: Path, times: np.ndarray, fps: float, size: tuple[int, int]) -> np.ndarray:
    """The frames uint8 [T, H, W, 3] that are nearest to the times [T].

    times: increasing, in s. fps: frames per second.
    size: height and width that the video must have, in pixels.
    Raises a UserError if a time has no frame within 0.5/fps s: a frame further away belongs to
    another step. Logs a warning if frames are further away than TOLERANCE.
    """
    av = extras.require("av", extra="data")
    # `_nearest` decodes from the first time to the last, so the order matters.
    if not np.isfinite(times).all() or np.any(np.diff(times) <= 0):
        # The first step whose time is not below the next one; comparisons with NaN are False.
        t = int(np.argmax(~(np.diff(times) > 0)))
        raise UserError(
            f"{path}: expected times that increase, got {times[t]} s and then "
            f"{times[min(t + 1, len(times) - 1)]} s at step {t}."
        )

    # The demuxer is fixed to MP4. If it were chosen by content, the file could be a playlist, whose
    # demuxer opens other files or reads from the network.
    with as_user_error(f"{path}: can't be decoded"):
        with av.open(f"file:{path}", format="mp4") as container:
            pixels, distances = _nearest(path, container, times, 0.5 / fps, size)

    # An infinite distance means that the video has no frame for that step.
    far = np.flatnonzero(np.isinf(distances))
    if far.size:
        t = int(far[0])
        raise UserError(
            f"{path}: expected a frame within {0.5 / fps:.4f} s of {times[t]:.4f} s, step {t}, got "
            f"none, as for {far.size} of {len(times)} steps: it is shorter than the data, or cut."
        )
    # Near enough to be used, but not exact: a camera that started late, or a rate slightly
    # different from the one in info.json.
    off = distances > TOLERANCE
    if off.any():
        log.warning(
            "%s: %d of %d frames lie further than %g s from their time, the furthest %.4f s",
            path, off.sum(), len(times), TOLERANCE, distances.max(),
        )  # fmt: skip
    return pixels


def _nearest(
    path: Path,
    container: av.container.InputContainer,
    times: np.ndarray,
    limit: float,
    size: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """For each time, the pixels of the nearest frame and its distance in s.

    limit: largest distance in s. A time without such a frame gets pixels of 0 and an infinite
        distance.
    Returns uint8 [T, H, W, 3] and [T].
    """
    if not container.streams.video:
        raise UserError(f"{path}: expected a video stream, got none.")
    stream = container.streams.video[0]
    header_size = stream.codec_context.height, stream.codec_context.width
    # Compared before any frame is decoded, since a hostile header may claim any size.
    if header_size != size:
        raise UserError(
            f"{path}: expected {size[0]} x {size[1]} px by info.json, got {header_size[0]} x "
            f"{header_size[1]}."
        )
    # Without this option FFmpeg conceals damage in H.264 frames silently. AV1 has no such check.
    stream.codec_context.options = {"err_detect": "explode"}
    # Several threads, over frames or slices, whichever the codec supports.
    stream.thread_type = "AUTO"

    # One pass over the video: each frame is written to all steps for which it is the nearest yet.
    pixels = np.zeros((len(times), *size, 3), np.uint8)
    distances = np.full(len(times), np.inf)
    start = times[0] - limit
    end = times[-1] + limit
    for frame in _decoded(container, stream, start):
        # Decoding starts at a key frame, which may lie before the first time that is wanted.
        if frame.time < start:
            continue
        if frame.time > end:
            break
        # [T] distances of this frame; it may be the nearest one of several steps, or of none.
        distance = np.abs(times - frame.time)
        nearer = np.flatnonzero((distance < distances) & (distance <= limit))
        if len(nearer):
            pixels[nearer] = frame.to_ndarray(format="rgb24")
            distances[nearer] = distance[nearer]
    return pixels, distances


def _decoded(
    container: av.container.InputContainer, stream: av.VideoStream, start: float
) -> Iterator[av.VideoFrame]:
    """The frames from the last key frame before `start` (in s) on, in order of time."""
    # `seek` goes to the last key frame before a time, which it takes in ticks of the stream.
    if start > 0 and stream.time_base is not None:
        container.seek(int(start / stream.time_base), stream=stream)
    for frame in container.decode(stream):
        # A frame without a time can't be assigned to a step.
        if frame.time is not None:
            yield frame
