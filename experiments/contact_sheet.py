"""Draw data/contact_sheet.png: minimal pairs of the test split with their captions and questions.

    python experiments/contact_sheet.py
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from data import language, questions
from data.render import render
from data.scene import PLACE, WORLDS, sample
from tinyvlm import plots


def main():
    world, pixels, lines = WORLDS["default"], [], []
    for k, family in enumerate(questions.FAMILIES):
        pairs = questions.pairs(world, 0, "test", family, 8)
        row = pairs.rows[k : k + 1]
        for side in (0, 1):
            scenes = sample(world, 0, "test", pairs.indices[k : k + 1] + side)
            told = scenes.objects.copy()
            told[..., PLACE] = 0
            asked, replied = language.ask(row)[0], language.reply(row, pairs.answers[k : k + 1, side])[0]
            pixels.append(render(world, scenes, 112)[0])
            lines.append([[(language.text(language.caption(told)[0]), None)], [(language.text(asked) + " ", None), (language.text(replied), True)]])
    plots.page(pixels, lines, ROOT / "data" / "contact_sheet.png", columns=4)


if __name__ == "__main__":
    main()
