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

train clip train_clip.py
train clip-1 train_clip.py --seed 1
train clip-2 train_clip.py --seed 2
train vlm-qformer train_vlm.py
for projector in pixelshuffle mlp linear label; do  # the language stage is the same for all
    train "vlm-$projector" train_vlm.py --projector "$projector" --decoder runs/vlm-qformer
done
for seed in 1 2; do
    train "vlm-qformer-$seed" train_vlm.py --seed "$seed" --clip "runs/clip-$seed"
done
train clip-full train_clip.py --dataset shapes-full
train vlm-full train_vlm.py --dataset shapes-full --clip runs/clip-full
train clip-ko train_clip.py --language ko
train vlm-ko train_vlm.py --language ko --clip runs/clip-ko
train clip-both train_clip.py --language both --steps 572
train vlm-both train_vlm.py --language both --clip runs/clip-both --steps 2600
train clip-held train_clip.py --held-out 2
train vlm-held train_vlm.py --held-out 2 --clip runs/clip-held
train clip-cooccurrence train_clip.py --dataset shapes-cooccurrence
train vlm-cooccurrence train_vlm.py --dataset shapes-cooccurrence --clip runs/clip-cooccurrence

python evaluate.py --compare runs/vlm-label runs/vlm-linear runs/vlm-qformer \
    runs/vlm-mlp runs/vlm-pixelshuffle
cp runs/compare/compare.md experiments/compare_projectors.md
python experiments/collect.py
python experiments/write_results.py
