"""Frames of an MP4 at given times."""

from collections.abc import Iterator
import logging
from pathlib import Path

import av
import numpy as np

from dpjax.convert.source import reading
from dpjax.core.errors import UserError

TOLERANCE = 1e-3  # s; a frame further from its time is said
_log = logging.getLogger("dpjax")


def frames(path: Path, times: np.ndarray, fps: float, size: tuple[int, int]) -> np.ndarray:
    """The frames [T, H, W, 3] uint8 nearest to times [T] in s, which must increase.

    A frame further away than half of 1/fps is another step's: refused. size: height, width.
    """
    if not np.isfinite(times).all() or np.any(np.diff(times) <= 0):
        t = int(np.argmax(~(np.diff(times) > 0)))
        raise UserError(
            f"{path}: expected times that increase, got {times[t]} s and then "
            f"{times[min(t + 1, len(times) - 1)]} s at step {t}."
        )
    # The demuxer by name: others follow what they read to more files, or to the network.
    with reading(f"{path}: can't be decoded"), av.open(f"file:{path}", format="mp4") as container:
        pixels, errors = _nearest(path, container, times, 0.5 / fps, size)
    if (far := np.flatnonzero(np.isinf(errors))).size:
        t = int(far[0])
        raise UserError(
            f"{path}: expected a frame within {0.5 / fps:.4f} s of {times[t]:.4f} s, step {t}, got "
            f"none, as for {far.size} of {len(times)} steps: it is shorter than the data, or cut."
        )
    if (off := errors > TOLERANCE).any():
        _log.warning(
            "%s: %d of %d frames lie further than %g s from their time, the furthest %.4f s",
            path, off.sum(), len(times), TOLERANCE, errors.max(),
        )  # fmt: skip
    return pixels


def _nearest(
    path: Path, container: av.container.InputContainer, times: np.ndarray, most: float, size
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [T, H, W, 3] and distances [T] in s of the frames nearest to each time.

    most: s; a frame further away than this is none, and its distance infinite.
    """
    if not container.streams.video:
        raise UserError(f"{path}: expected a video stream, got none.")
    stream = container.streams.video[0]
    got = stream.codec_context.height, stream.codec_context.width
    if got != size:  # before a frame is decoded
        raise UserError(
            f"{path}: expected {size[0]} x {size[1]} px by info.json, got {got[0]} x {got[1]}."
        )
    # Else a damaged H.264 frame is patched up without a word. AV1 notices no flipped bit.
    stream.codec_context.options = {"err_detect": "explode"}
    stream.thread_type = "AUTO"
    pixels = np.zeros((len(times), *size, 3), np.uint8)
    errors = np.full(len(times), np.inf)
    first, last = times[0] - most, times[-1] + most
    for frame in _decoded(container, stream, first):
        when = frame.time
        if when < first:
            continue
        if when > last:
            break
        distance = np.abs(times - when)
        near = np.flatnonzero((distance < errors) & (distance <= most))
        if len(near):
            pixels[near] = frame.to_ndarray(format="rgb24")
            errors[near] = distance[near]
    return pixels, errors


def _decoded(container, stream, first: float) -> Iterator[av.VideoFrame]:
    """The frames from the last key frame before `first` on, in order of their times."""
    if first > 0:
        container.seek(int(first / stream.time_base), stream=stream)
    for frame in container.decode(stream):
        if frame.time is not None:
            yield frame
