"""The report is one file that needs no other, and the films play."""

import re

import av
import numpy as np
from PIL import Image

from dpjax.evaluation import plots, report, scores, video


def clips():
    """Three clips of 3, 5 and 8 frames."""
    frame = np.full((40, 40, 3), 255, np.uint8)
    return [[frame - 20 * t for t in range(length)] for length in (3, 5, 8)]


def film(path, **options):
    progress = [np.linspace(0, 1, len(clip) - 1) for clip in clips()]
    return dict(path=path, clips=clips(), progress=progress, success=[True, False, True],
                columns=2, **options)  # fmt: skip


def test_the_mp4_has_every_frame_at_an_even_size(tmp_path):
    video.grid_video(**film(tmp_path / "a.mp4", size=61, fps=10))
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert stream.codec_context.name == "h264" and stream.pix_fmt == "yuv420p"
    assert len(frames) == 8 and frames[0].width % 2 == frames[0].height % 2 == 0


def test_the_gif_loops(tmp_path):
    video.grid_gif(**film(tmp_path / "a.gif", size=100, scale=0.5, every=2))
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 5 and image.info["loop"] == 0


def test_a_finished_clip_holds_its_last_frame_with_its_border():
    pages = list(video.grid_frames(clips(), None, [True, False, True], columns=2, size=40))
    first = [page.crop((6, 6, 46, 46)) for page in pages]
    second = [page.crop((52, 6, 92, 46)) for page in pages]
    assert first[1].getpixel((0, 0)) != video.GREEN
    assert all(cell.getpixel((0, 0)) == video.GREEN for cell in first[2:])
    assert all(cell.getpixel((0, 0)) == video.GREY for cell in second[4:])
    assert first[2].tobytes() == first[-1].tobytes()


def test_the_page_needs_no_other_file_and_escapes_its_values(tmp_path):
    video.grid_video(**film(tmp_path / "a.mp4", size=60))
    numbers = dict(score=0.9, score_interval=[0.8, 1.0], success=None, success_interval=None)
    chunks = np.random.default_rng(0).uniform(0, 512, (4, 16, 2))
    still = plots.actions_over_scene(clips()[0][0], [("noise", chunks), ("clean", chunks)])
    report.write_report(
        tmp_path / "report.html",
        title="a <b> & c",
        summary=["one", "two"],
        table=[{"sampler": "ddim", "score": 0.123456}],
        scores={"ours": numbers},
        curves={"train": (np.arange(500), np.exp(-np.arange(500) / 99)), "val": ([0], [1.0])},
        coverages=[0.2, 0.96, 0.9],
        video=tmp_path / "a.mp4",
        stills=[("plans", still)],
        provenance={"commit": "<script>"},
    )
    page = (tmp_path / "report.html").read_text()
    assert "a &lt;b&gt; &amp; c" in page and "<script>" not in page and "0.1235" in page
    sources = re.findall(r'src="([^"]{0,15})', page)
    assert len(sources) == 5 and all(source.startswith("data:") for source in sources)
    assert "http" not in page.split("</style>")[0]


def test_a_page_needs_a_title_and_a_line_only(tmp_path):
    report.write_report(tmp_path / "r.html", title="t", summary=scores.with_interval(None, None))
    assert "<figure>" not in (tmp_path / "r.html").read_text()
