"""Random integers by counter: a pure function of what they are for, without any state."""

import numpy as np

from data.shapes.world import SPLITS


class CounterRNG:
    """Random integers that depend on nothing but (seed, split, index, tag): splitmix64 of the four.

    The seed is that of the training pictures; every other split is the same whatever the seed, so
    that runs with different seeds are tested on the same items.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
    """

    def __init__(self, seed, split, indices):
        seed = np.uint64(seed if split == "train" else 0)
        stream = splitmix64(seed + np.uint64(SPLITS.index(split) << 56))
        self.key = splitmix64(stream ^ np.asarray(indices, np.uint64))

    def randint(self, tag, sides, shape=()):
        """Integers in [0, sides) of shape (b, *shape); `tag` is a name, one for each use.

        The tags are part of the data: another tag gives other scenes.
        """
        salt = np.uint64(0)
        for byte in tag.encode():
            salt = splitmix64(salt ^ np.uint64(byte))
        lane = np.arange(int(np.prod(shape)), dtype=np.uint64) + salt
        bits = splitmix64(self.key[:, None] ^ splitmix64(lane)[None, :])
        # 31 random bits times sides, divided by 2 ** 31
        numbers = (
            (bits >> np.uint64(33)).astype(np.int64) * np.asarray(sides).reshape(-1, 1)
        ) >> 31
        return numbers.reshape(len(self.key), *shape)

    def randint_flat(self, tag, sides, each):
        """Integers (b * each,), where `sides` may differ from one to the next."""
        big = self.randint(tag, 2**31, (each,)).reshape(-1)
        return (big * np.asarray(sides)) >> 31


def splitmix64(x):
    """The finaliser of splitmix64, a bijection on uint64 that flips half of the bits."""
    x = np.atleast_1d(np.asarray(x, np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
