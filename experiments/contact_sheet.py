"""Draw data/contact_sheet.png: minimal pairs of the test split with their captions and questions.

    python experiments/contact_sheet.py
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from data.shapes import grammar, questions
from data.shapes.render import render
from data.shapes.scene import PLACE, WORLDS, sample
from tinyvlm.evaluation import plots


def main():
    world, pixels, lines = WORLDS["default"], [], []
    for k, family in enumerate(questions.FAMILIES):
        pairs = questions.sample_minimal_pairs(world, 0, "test", family, 8)
        row = pairs.rows[k : k + 1]
        for side in (0, 1):
            scenes = sample(world, 0, "test", pairs.indices[k : k + 1] + side)
            told = scenes.objects.copy()
            told[..., PLACE] = 0
            asked, replied = grammar.render_question(row)[0], grammar.render_answer(row, pairs.answers[k : k + 1, side])[0]
            pixels.append(render(world, scenes, 112)[0])
            lines.append([[(grammar.text(grammar.caption(told)[0]), None)], [(grammar.text(asked) + " ", None), (grammar.text(replied), True)]])
    plots.save_image_grid(pixels, lines, ROOT / "data" / "contact_sheet.png", columns=4)


if __name__ == "__main__":
    main()
