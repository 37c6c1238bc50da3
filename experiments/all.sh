#!/usr/bin/env bash
# Every run behind RESULTS.md, one after the other, then their evaluation and the pages: four to five hours on two cores.
# A run that is finished is not done again.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"

train() {  # folder, then the command
    local out=runs/$1
    shift
    test -f "$out/metrics.json" || python "$@" --out "$out" $(test -f "$out/last.pt" && echo --resume)
    test -f "$out/report.json" || python evaluate.py "$out"
}

# Five projectors and their CLIPs, three seeds: cells, run here even if the repository has them.
python ablate.py run projectors --seeds 3 --cells runs/cells
python experiments/link_cells.py runs/ablate
for seed in "" -1 -2; do
    for run in clip vlm-{label,linear,mlp,pixelshuffle,qformer}; do
        test -f "runs/$run$seed/report.json" || python evaluate.py "runs/$run$seed"
    done
done
train clip-full train_clip.py --dataset shapes-full
train vlm-full train_vlm.py --dataset shapes-full --clip runs/clip-full
train clip-ko train_clip.py --language ko
train vlm-ko train_vlm.py --language ko --clip runs/clip-ko
train clip-both train_clip.py --language both --steps 572
train vlm-both train_vlm.py --language both --clip runs/clip-both --steps 2990
train clip-held train_clip.py --held-out 2
train vlm-held train_vlm.py --held-out 2 --clip runs/clip-held
train clip-cooccurrence train_clip.py --dataset shapes-cooccurrence
train vlm-cooccurrence train_vlm.py --dataset shapes-cooccurrence --clip runs/clip-cooccurrence

python experiments/collect.py
python experiments/write_results.py
