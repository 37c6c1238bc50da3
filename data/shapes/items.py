"""What a split hands out to evaluation: pictures, strings, and which scores hang together."""

from dataclasses import dataclass

import numpy as np

from data.shapes.pictures import Pictures


@dataclass
class Questions:
    """Questions about pictures, flat: each picture's stand side by side.

    pictures: n. asked, targets: n * q strings. cluster: (n * q,).
    """

    pictures: Pictures
    asked: list
    targets: list

    @property
    def cluster(self):
        return self.pictures.cluster.repeat(len(self.asked) // len(self.pictures))


@dataclass
class QuestionPairs(Questions):
    """One question of one family about both pictures of each minimal pair.

    paraphrases: the same questions in words that training never has. needs_counting: bool (n,).
    is_denied: bool (n,), where the answer is that there is no such thing, or several. chance: what
    a guess is right in.
    """

    paraphrases: list
    needs_counting: np.ndarray
    is_denied: np.ndarray
    chance: float


@dataclass
class Presence:
    """POPE: "is there a SHAPE ?", two a picture. asked: n lists of 2 texts. is_there: bool (n, 2).

    cluster: (2 n,) four answers that hang together, see hard_negatives.sample_pope.
    """

    pictures: Pictures
    asked: list
    is_there: np.ndarray
    cluster: np.ndarray


@dataclass
class ZeroShot:
    """Pictures of one object, their class (n,), and the class captions in several templates.

    templates: {name: [64 captions]}, "plain" and others; `unseen` names those that training never
    shows. chance: the share that the most frequent class has.
    """

    pictures: Pictures
    label: np.ndarray
    templates: dict
    unseen: tuple
    chance: float
