#!/usr/bin/env bash
# From a fresh clone to segmented pictures: draws scenes, trains on their captions, scores, writes pictures.
# Run again, it goes on where it stopped. Flags are handed to `groupvit train`, e.g. --config.train.steps=200.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
environment
began=$SECONDS
run=runs/quickstart test=runs/scenes-test
words=sky,grass,sand,night,road,zebra,brick,coin,leaf,banana,plum,fish,strawberry,flower,kite

groupvit data scenes --output=runs/scenes
groupvit data scenes --output=$test --train=0 --val=500 --seed=1 # scenes that chose nothing
groupvit train --config=configs/scenes.py --workdir=$run "$@"
groupvit eval --checkpoint=$run --data_root=$test --oracle --output=$run/scores.json
groupvit segment --checkpoint=$run --images="$test/VOCdevkit/scenes/JPEGImages/val_00000?.jpg" --classes=$words \
  --views=input,input_pred_label,all_groups,labels,areas --output=$run/pictures

cat <<END

done in $(((SECONDS - began) / 60)) min $(((SECONDS - began) % 60)) s
  score     $(python -c "import json; s = json.load(open('$run/scores.json'))['scenes']; print(f\"mIoU {s['mIoU']:.1f} % over {len(s['iou'])} classes (best constant class {s['constant']:.1f}, oracle names {s['oracle']['mIoU']:.1f}), {s['groups_used']:.1f} groups in use\")")
  pictures  $run/pictures/*.input_pred_label.png, *.all_groups.png (labels.png, areas.json: the numbers)
  scores    $run/scores.json
  curves    $run/report.html, a page; $run/metrics.jsonl, the numbers
  model     $run   (source .venv/bin/activate; groupvit segment --checkpoint=$run --images=... --classes=... --output=...)
END
