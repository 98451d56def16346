"""Films of episodes: a grid of clips, as mp4 for reports and as gif for a README.

A clip that ends before the others holds its last frame: with a green border if the episode
succeeded, otherwise dimmed with a grey one. The number in the corner is the progress.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpjax.core import extras

if TYPE_CHECKING:
    from PIL import Image

# Cells are the places of the grid, one per clip.
GAP = 6  # px between cells
BACKGROUND = (24, 26, 30)
GREEN = (46, 204, 113)
GREY = (110, 116, 128)
INK = (40, 44, 52)

Clip = Sequence[np.ndarray]  # frames uint8 [H, W, 3]; clips may differ in length


def _pillow(module: str):
    """A module of Pillow; UserError if Pillow is not installed."""
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
    """Writes an mp4 (h264, yuv420p: plays everywhere).

    clips: the frames of each episode. progress: [T] of each episode; frame i shows the progress
    that step i - 1 reached. success: of each episode. columns: clips side by side. fps: frames
    per second. size: side of a clip, px.
    """
    av = extras.require("av", extra="report")
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        # The size of the film is known with its first image.
        stream = None
        for image in grid_frames(clips, progress, success, columns=columns, size=size):
            if stream is None:
                stream = container.add_stream("libx264", rate=fps)
                stream.width, stream.height = image.width, image.height
                # Half the colour resolution and a constant quality: small, and played everywhere.
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": "25", "preset": "medium"}
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        # What the encoder still holds.
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
    """Writes the same grid as a small gif: every `every`-th frame, one palette for all frames.

    scale: of the side of a clip; colors: in the palette. The other arguments: see `grid_video`.
    """
    image_lib = _pillow("Image")
    # Drawn at its final size: numbers in the corner stay legible.
    side = round(size * scale)
    images = list(grid_frames(clips, progress, success, columns=columns, size=side))
    # The palette is made from the first and the last frame: together they have all the colours.
    both = np.concatenate([np.asarray(images[0]), np.asarray(images[-1])])
    palette = image_lib.fromarray(both).quantize(colors)
    # The last frame, which shows how all ended, is kept whatever `every` is.
    kept = [*images[::every], images[-1]]
    small = [image.quantize(palette=palette, dither=0) for image in kept]
    small[0].save(
        path,
        save_all=True,
        append_images=small[1:],
        duration=[1000 * every // fps] * (len(small) - 1) + [1500],  # ms; the last frame stays
        loop=0,
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
    """The images of the film, all of one size; its sides are even, as h264 wants them.

    The arguments: see `grid_video`.
    """
    image_lib = _pillow("Image")
    # Cells with gaps between and around them, rounded up to an even number of px.
    columns = min(columns, len(clips))
    lines = -(-len(clips) // columns)
    step = size + GAP
    shape = [(count * step + GAP + 1) // 2 * 2 for count in (columns, lines)]
    # The film is as long as the longest clip; the others hold their last frame.
    last_cells: list[Image.Image | None] = [None] * len(clips)  # of clips that have ended
    for t in range(max(len(clip) for clip in clips)):
        page = image_lib.new("RGB", shape, BACKGROUND)
        for i, clip in enumerate(clips):
            cell = last_cells[i]
            if cell is None:
                number = _progress_at(progress[i], t) if progress is not None else None
                cell = _cell(clip[t], number, size)
                if t == len(clip) - 1:
                    cell = _finish(cell, success is None or bool(success[i]))
                    last_cells[i] = cell
            page.paste(cell, (GAP + i % columns * step, GAP + i // columns * step))
        yield page


def _progress_at(progress: np.ndarray, t: int) -> float:
    """The progress that frame t shows: 0 before the first step, later that of step t - 1."""
    return float(progress[min(t, len(progress)) - 1]) if t and len(progress) else 0.0


def _cell(frame: np.ndarray, number: float | None, size: int) -> Image.Image:
    """A frame at the size of a cell, with the number in its upper right corner."""
    image_lib = _pillow("Image")
    cell = image_lib.fromarray(frame).resize((size, size), image_lib.LANCZOS)
    if number is not None:
        draw = _pillow("ImageDraw").Draw(cell)
        # Sizes follow the cell, so that a small gif and a large film look alike.
        font = _pillow("ImageFont").load_default(max(9, size // 12))
        corner = (size - size // 20, size // 20)
        draw.text(corner, f"{number:.2f}", INK, font, anchor="ra")
    return cell


def _finish(cell: Image.Image, success: bool) -> Image.Image:
    """The last frame of a clip: with a green border, or dimmed with a grey one."""
    image_lib = _pillow("Image")
    if not success:
        cell = image_lib.blend(cell, image_lib.new("RGB", cell.size, BACKGROUND), 0.35)
    # A border of 2.5 % of the side, 3 px at least.
    width = max(3, cell.width // 40)
    box = [0, 0, cell.width - 1, cell.height - 1]
    outline = GREEN if success else GREY
    _pillow("ImageDraw").Draw(cell).rectangle(box, outline=outline, width=width)
    return cell
