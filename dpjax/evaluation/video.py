"""Films of episodes: a grid of clips, as mp4 for reports and as gif for a README.

A clip that ends before the others stays at its last frame: with a green border if the episode
succeeded, otherwise dimmed and with a grey border. The number in the corner is the progress.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpjax.core import extras

if TYPE_CHECKING:
    from PIL import Image

# The grid has one cell per clip.
GAP = 6  # px between cells
BACKGROUND = (24, 26, 30)  # RGB, as all colours here
GREEN = (46, 204, 113)  # the border of a success
GREY = (110, 116, 128)  # the border of a failure
INK = (40, 44, 52)  # the number

Clip = Sequence[np.ndarray]  # frames uint8 [H, W, 3]; clips may differ in length


def _pillow(module: str):
    """A module of Pillow; raises UserError if Pillow is not installed."""
    return extras.require(f"PIL.{module}", extra="report")


def grid_video(
    path: str | Path,
    clips: Sequence[Clip],
    *,
    progress: Sequence[np.ndarray] | None = None,
    success: Sequence[bool] | None = None,
    columns: int = 5,
    fps: int = 10,
    size: int = 192,
) -> None:
    """Writes an mp4 (h264, yuv420p), which plays everywhere.

    clips: the frames of each episode. progress: [T] of each episode; frame i shows the progress
    after step i - 1. success: of each episode. columns: clips side by side. fps: frames per
    second. size: side of a clip, px.
    """
    av = extras.require("av", extra="report")
    # "faststart" puts the index at the start of the file: a film can start before it is loaded.
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        # The stream is added with the first image, which tells the size of the film.
        stream = None
        for image in grid_frames(clips, progress, success, columns=columns, size=size):
            if stream is None:
                stream = container.add_stream("libx264", rate=fps)
                stream.width, stream.height = image.width, image.height
                # Half the resolution in colour, which all players expect, and constant quality.
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": "25", "preset": "medium"}
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        # The encoder looks ahead: without an argument, `encode` returns the frames it still holds.
        container.mux(stream.encode())


def grid_gif(
    path: str | Path,
    clips: Sequence[Clip],
    *,
    progress: Sequence[np.ndarray] | None = None,
    success: Sequence[bool] | None = None,
    columns: int = 5,
    fps: int = 10,
    size: int = 192,
    scale: float = 0.5,
    every: int = 2,
    colors: int = 48,
) -> None:
    """Writes the grid as a small gif: one frame in `every`, and one palette for all frames.

    scale: factor for the side of a clip. colors: their number in the palette. The other arguments
    are those of `grid_video`.
    """
    image_lib = _pillow("Image")
    # Drawn at the final size, not shrunk afterwards, so that the numbers stay legible.
    side = round(size * scale)
    images = list(grid_frames(clips, progress, success, columns=columns, size=side))
    # The palette is computed from the first and the last frame, which together have all colours:
    # a border appears only at the end.
    both = np.concatenate([np.asarray(images[0]), np.asarray(images[-1])])
    palette = image_lib.fromarray(both).quantize(colors)
    # The last frame shows how all episodes ended, so it is kept whatever `every` is. Without
    # dithering, areas of one colour compress well.
    kept = [*images[::every], images[-1]]
    small = [image.quantize(palette=palette, dither=0) for image in kept]
    small[0].save(
        path,
        save_all=True,
        append_images=small[1:],
        duration=[1000 * every // fps] * (len(small) - 1) + [1500],  # ms; the last frame stays
        loop=0,  # for ever
        optimize=True,
    )


def grid_frames(
    clips: Sequence[Clip],
    progress: Sequence[np.ndarray] | None,
    success: Sequence[bool] | None,
    *,
    columns: int,
    size: int,
) -> Iterator[Image.Image]:
    """The images of the film, all of one size, with even sides, which h264 requires.

    The arguments are those of `grid_video`.
    """
    image_lib = _pillow("Image")
    # The size in px: cells with gaps between and around them, rounded up to an even number.
    columns = min(columns, len(clips))
    lines = -(-len(clips) // columns)  # rounded up
    step = size + GAP
    shape = [(count * step + GAP + 1) // 2 * 2 for count in (columns, lines)]
    # The film is as long as the longest clip. The last frame of a shorter clip is kept and shown
    # again, since its border is drawn only once.
    last_cells: list[Image.Image | None] = [None] * len(clips)  # of clips that have ended
    for t in range(max(len(clip) for clip in clips)):
        page = image_lib.new("RGB", shape, BACKGROUND)
        for i, clip in enumerate(clips):
            cell = last_cells[i]
            if cell is None:
                number = _progress_at(progress[i], t) if progress is not None else None
                cell = _cell(clip[t], number, size)
                # Without `success`, every clip ends with a green border.
                if t == len(clip) - 1:
                    cell = _finish(cell, success is None or bool(success[i]))
                    last_cells[i] = cell
            # Left to right, then top to bottom.
            page.paste(cell, (GAP + i % columns * step, GAP + i // columns * step))
        yield page


def _progress_at(progress: np.ndarray, t: int) -> float:
    """The progress that frame t shows: 0 before the first step, then that of step t - 1."""
    # Frames beyond the last step show the last progress.
    return float(progress[min(t, len(progress)) - 1]) if t and len(progress) else 0.0


def _cell(frame: np.ndarray, number: float | None, size: int) -> Image.Image:
    """A frame at the size of a cell, with the number in its upper right corner."""
    image_lib = _pillow("Image")
    cell = image_lib.fromarray(frame).resize((size, size), image_lib.LANCZOS)
    if number is not None:
        draw = _pillow("ImageDraw").Draw(cell)
        # Font and margin follow the size of the cell: a small gif and a large film look alike.
        font = _pillow("ImageFont").load_default(max(9, size // 12))
        corner = (size - size // 20, size // 20)
        draw.text(corner, f"{number:.2f}", INK, font, anchor="ra")  # right-aligned, from the top
    return cell


def _finish(cell: Image.Image, success: bool) -> Image.Image:
    """The last frame of a clip: with a green border, or dimmed and with a grey border."""
    image_lib = _pillow("Image")
    if not success:
        cell = image_lib.blend(cell, image_lib.new("RGB", cell.size, BACKGROUND), 0.35)
    # The border is 2.5 % of the side wide, and at least 3 px.
    width = max(3, cell.width // 40)
    box = [0, 0, cell.width - 1, cell.height - 1]
    outline = GREEN if success else GREY
    _pillow("ImageDraw").Draw(cell).rectangle(box, outline=outline, width=width)
    return cell
