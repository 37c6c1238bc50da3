"""Draw data/shapes/contact_sheet.png: minimal pairs of the test split, captions and questions.

python experiments/contact_sheet.py
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from data.dataset import DATASETS  # noqa: E402
from tinyvlm.evaluation import plots  # noqa: E402


def main():
    split, pixels, lines = DATASETS["shapes"](image_size=112).split("test"), [], []
    exams = [split.question_pairs(family, 8) for family in split.families]
    for k, asked in enumerate([*exams, split.premise_pairs(20)]):
        mine = slice(2 * k, 2 * k + 2)
        shown = asked.pictures[mine]
        pixels += shown.pixels()
        rows = zip(shown.captions(), asked.asked[mine], asked.targets[mine], strict=True)
        for caption, question, target in rows:
            lines.append([[(caption, None)], [(question + " ", None), (target, True)]])
    plots.save_image_grid(pixels, lines, ROOT / "data" / "shapes" / "contact_sheet.png")


if __name__ == "__main__":
    main()
