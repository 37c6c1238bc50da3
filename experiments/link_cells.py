"""runs/clip-1, runs/vlm-mlp-2, ...: links to the cells of `python ablate.py run projectors`.

    python experiments/link_cells.py runs/ablate     # where the cells ran

So the same runs stand in FINDINGS.md and, evaluated in full, in RESULTS.md (experiments/all.sh).
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from ablate import SCRIPTS  # noqa: E402
from experiments.catalogue import EXPERIMENTS  # noqa: E402
from tinyvlm.ablation.cells import cell_of  # noqa: E402
from tinyvlm.ablation.results import made_here  # noqa: E402

ARMS = next(e.arms for e in EXPERIMENTS if e.name == "projectors")


def main(cells, seeds=3):
    runs = ROOT / "runs"
    runs.mkdir(exist_ok=True)
    for seed in range(seeds):
        ending = f"-{seed}" if seed else ""
        named = {f"clip{ending}": cell_of("train_clip", {}, seed, SCRIPTS)}
        for projector, settings in ARMS.items():
            named[f"vlm-{projector}{ending}"] = cell_of("train_vlm", settings, seed, SCRIPTS)
        for name, cell in named.items():
            folder, link = cells / made_here(cell), runs / name
            if link.exists() and not link.is_symlink():
                sys.exit(f"{link} is a run of its own; move it away, for a cell takes its name")
            if (folder / "metrics.json").exists():
                link.unlink(missing_ok=True)
                link.symlink_to(folder.resolve())
                print(f"{link.relative_to(ROOT)} is {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
