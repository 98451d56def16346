"""Rows compared with the machine's ceilings and with the gates: table, results.json, plot."""

import json
from pathlib import Path

from dpjax.evaluation import plots, provenance
from experiments.throughput import cases

# The speed that dpjax has promised to keep: {result: at least}.
GATES = {
    "train_unet_small": 2.0,
    "train_unet_65m": 2.0,
    "train_image": 1.5,
    "sample_b1_small": 2.5,
    "sample_b1_65m": 2.5,
    "sample_b1_65m_share_of_bandwidth": 0.8,
    "train_65m_share_of_sgemm": 0.8,
}
# The cases that the gates are about.
GATED = (
    "train_unet_small",
    "train_unet_65m",
    "train_image",
    "sample_unet_small_ddpm-100_b1",
    "sample_unet_65m_ddpm-100_b1",
)


def shares(row: dict, ceilings: dict) -> dict:
    """How near dpjax comes to the ceiling that applies: products, or reading the weights."""
    ours = row["dpjax"]
    seconds = ours["ms"] * 1e-3
    if "matmul_flops" in ours:
        share = lambda flops: flops and flops / seconds / ceilings["sgemm"]
        return {
            "share_of_sgemm": share(ours["matmul_flops"]),
            "share_made": share(ours.get("made_flops")),
        }
    if row["kind"] == "sample" and row["batch"] == 1:
        # Weights inside the sampling loop are read in every step, the others once per chunk.
        once = ours["parameters"] - ours["loop_parameters"]
        weights = 4 * (once + row["steps"] * ours["loop_parameters"])  # bytes
        return {"share_of_bandwidth": weights / seconds / ceilings["bandwidth"]}
    return {}


def gates(rows: dict) -> dict:
    """{gate: its number}; None if a side was not measured."""

    def get(name, key):
        return rows.get(name, {}).get(key)

    return {
        "train_unet_small": get("train_unet_small", "ratio"),
        "train_unet_65m": get("train_unet_65m", "ratio"),
        "train_image": get("train_image", "ratio"),
        "sample_b1_small": get("sample_unet_small_ddpm-100_b1", "ratio"),
        "sample_b1_65m": get("sample_unet_65m_ddpm-100_b1", "ratio"),
        "sample_b1_65m_share_of_bandwidth": get(
            "sample_unet_65m_ddpm-100_b1", "share_of_bandwidth"
        ),
        "train_65m_share_of_sgemm": get("train_unet_65m", "share_of_sgemm"),
    }


def table(rows: dict) -> str:
    """The rows in Markdown."""
    lines = ["| case | dpjax ms | eager ms | compiled ms | ratio | share of ceiling | peak MB |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        cells = [name]
        for side in ("dpjax", "eager", "compiled"):
            cells.append(f"{row[side]['ms']:.1f}" if side in row else "")
        share = row.get("share_of_sgemm") or row.get("share_of_bandwidth")
        cells.append(f"{row['ratio']:.2f}" if row["ratio"] else "")
        cells.append(f"{share:.0%}" if share else "")
        cells.append(f"{row['dpjax']['peak_mb']:.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(path: Path, rows: dict) -> None:
    """The ratio of each case to the faster peer, as bars."""
    ratios = {name: row["ratio"] for name, row in rows.items() if row["ratio"]}
    if not ratios:
        return
    figure = plots.figure(8, 0.32 * len(ratios) + 1)
    axes = figure.add_subplot()
    names, values = zip(*reversed(ratios.items()))  # the first case on top
    axes.barh(names, values, color=["#2563eb" if x >= 1 else "#e8590c" for x in values])
    axes.axvline(1, color="black", lw=0.8)
    for y, ratio in enumerate(values):
        axes.text(ratio, y, f" {ratio:.2f}", va="center", fontsize=8)
    axes.margins(y=0.01)
    axes.set(xlabel="times as fast as the faster of PyTorch eager and compiled")
    axes.spines[["top", "right"]].set_visible(False)
    path.write_bytes(plots.png(figure))


def write(folder: Path, rows: dict, machine: dict) -> None:
    """Updates the results of the rows' device with these rows, and the plot."""
    device = next(iter(rows.values()))["dpjax"]["device"]
    suffix = "" if device == "cpu" else "-" + device.lower().replace(" ", "-")
    path = folder / f"results{suffix}.json"
    before = json.loads(path.read_text())["rows"] if path.exists() else {}
    every = {**before, **rows}
    # In the order of the cases; rows of former cases last.
    order = {case["name"]: i for i, case in enumerate(cases.everything())}
    names = sorted(every, key=lambda name: order.get(name, len(order)))
    rows = {name: every[name] for name in names}
    result = {"gates": gates(rows), "rows": rows, **machine, "versions": provenance.versions()}
    path.write_text(json.dumps(result, indent=2) + "\n")
    plot(folder / f"ratios{suffix}.png", rows)
