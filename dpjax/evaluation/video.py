"""Films of episodes: a grid of clips, as mp4 for reports and as gif for a README.

A clip that ends before the others holds its last frame, framed in green where the episode
succeeded and dimmed where it did not. The number in the corner is the progress.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP = 6  # px between cells
BACKGROUND = (24, 26, 30)
GREEN, GREY = (46, 204, 113), (110, 116, 128)

Clip = Sequence[np.ndarray]  # frames uint8 [H, W, 3], a number of its own for each clip


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

    clips: one list of frames an episode. progress: [T] of each, frame i showing the
    progress after step i - 1. success: of each. size: px, the side of a cell.
    """
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = None
        for image in grid_frames(clips, progress, success, columns=columns, size=size):
            if stream is None:
                stream = container.add_stream("libx264", rate=fps)
                stream.width, stream.height = image.width, image.height
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": "25", "preset": "medium"}
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
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
    """Writes a small gif of the same grid: every second frame, one palette for all."""
    side = round(size * scale)
    images = list(grid_frames(clips, progress, success, columns=columns, size=side))
    # The palette is taken from the first and the last frame, which have all the colours.
    both = np.concatenate([np.asarray(images[0]), np.asarray(images[-1])])
    palette = Image.fromarray(both).quantize(colors)
    kept = [*images[::every], images[-1]]
    small = [image.quantize(palette=palette, dither=0) for image in kept]
    small[0].save(
        path,
        save_all=True,
        append_images=small[1:],
        duration=[1000 * every // fps] * (len(small) - 1) + [1500],
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
    """The images of the film, all of one even size."""
    columns = min(columns, len(clips))
    lines = -(-len(clips) // columns)
    step = size + GAP
    shape = [(count * step + GAP + 1) // 2 * 2 for count in (columns, lines)]
    held = [None] * len(clips)
    for t in range(max(len(clip) for clip in clips)):
        page = Image.new("RGB", shape, BACKGROUND)
        for i, clip in enumerate(clips):
            cell = held[i]
            if cell is None:
                number = _number(progress[i], t) if progress is not None else None
                cell = _cell(clip[t], number, size)
                if t == len(clip) - 1:
                    cell = held[i] = _finished(cell, success is None or bool(success[i]))
            page.paste(cell, (GAP + i % columns * step, GAP + i // columns * step))
        yield page


def _number(progress, t):
    return float(progress[min(t, len(progress)) - 1]) if t and len(progress) else 0.0


def _cell(frame, number, size):
    cell = Image.fromarray(frame).resize((size, size), Image.LANCZOS)
    if number is not None:
        draw = ImageDraw.Draw(cell)
        font = ImageFont.load_default(max(9, size // 12))
        place = (size - size // 20, size // 20)
        draw.text(place, f"{number:.2f}", (40, 44, 52), font, anchor="ra")
    return cell


def _finished(cell, success):
    """The frame that is held: a green border, or dimmed with a grey one."""
    if not success:
        cell = Image.blend(cell, Image.new("RGB", cell.size, BACKGROUND), 0.35)
    edge = max(3, cell.width // 40)
    box = [0, 0, cell.width - 1, cell.height - 1]
    ImageDraw.Draw(cell).rectangle(box, outline=GREEN if success else GREY, width=edge)
    return cell
