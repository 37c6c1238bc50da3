"""Words to ids and back, lossless: known words are one token each, all else is spelled in bytes.

    ids 0..2: [PAD] [BOS] [EOS]     ids 3..258: bytes     from 259: words

Two word tokens in a row stand for two words with one space between them. A word that begins with
"-" (a Korean particle such as "-은") is the end of the word before it, without a space. Any other
text between (or around) words is written out as UTF-8 bytes, so `decode(encode(text)) == text` for
every string, lone surrogates included.
"""

import re

PAD, BOS, EOS = 0, 1, 2
FIRST_BYTE, FIRST_WORD = 3, 259
TURN = "?"  # ends whatever is asked


class Tokenizer:
    def __init__(self, words):
        """words: the known words, without spaces; those that are ends of words begin with "-"."""
        self.words = tuple(words)
        self.ids = {word: FIRST_WORD + i for i, word in enumerate(self.words)}
        stems, ends = ([w for w in self.words if w.startswith("-") == is_end] for is_end in (0, 1))
        self.end = re.compile(one_of([end[1:] for end in ends]) if ends else "(?!)")
        self.pattern = re.compile(rf"(?<!\S)({one_of(stems)})((?:{self.end.pattern})*)(?!\S)")
        self.size = FIRST_WORD + len(self.words)

    def encode(self, text):
        """A string -> a list of ids, without [BOS] and [EOS]."""
        ids, end = [], 0
        for match in self.pattern.finditer(text):
            gap = text[end : match.start()]
            if not (gap == " " and ids and ids[-1] >= FIRST_WORD):
                ids += spell(gap)
            ids.append(self.ids[match[1]])
            ids += [self.ids["-" + part] for part in self.end.findall(match[2])]
            end = match.end()
        return ids + spell(text[end:])

    def encode_batch(self, texts):
        """Strings -> rows of ids, [PAD] at the ends: n lists of one length."""
        return pad_rows([self.encode(text) for text in texts])

    def encode_prompts(self, texts):
        """As encode_batch, each text but "" with " ?" at its end: it is the model's turn."""
        asked = [f"{text.removesuffix(TURN).rstrip()} {TURN}" if text else "" for text in texts]
        return self.encode_batch(asked)

    def encode_captions(self, texts):
        """Strings -> rows `[BOS] words [EOS] [PAD]...`: n lists of one length."""
        return pad_rows([[BOS, *self.encode(text), EOS] for text in texts])

    def name(self, i):
        """One id as people read it: a word, [EOS], or a byte such as <0x41>."""
        if i < FIRST_BYTE:
            return ("[PAD]", "[BOS]", "[EOS]")[i]
        return f"<0x{i - FIRST_BYTE:02x}>" if i < FIRST_WORD else self.words[i - FIRST_WORD]

    def decode(self, ids):
        """Ids -> the string; special tokens are left out. What is no UTF-8 becomes U+FFFD."""
        pieces, spelled, after_word = [], bytearray(), False
        for i in list(ids) + [PAD]:
            if FIRST_BYTE <= i < FIRST_WORD:
                spelled.append(i - FIRST_BYTE)
                continue
            if spelled:
                pieces.append(unspell(bytes(spelled)))
                spelled, after_word = bytearray(), False
            if i >= FIRST_WORD:
                word = self.words[i - FIRST_WORD]
                is_end = word.startswith("-")
                pieces.append(word[1:] if is_end else (" " if after_word else "") + word)
                after_word = True
        return "".join(pieces)


def one_of(words):
    """A pattern for one of the words, the longest first."""
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def spell(text):
    return [FIRST_BYTE + byte for byte in text.encode("utf-8", "surrogatepass")]


def unspell(data):
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace")


def pad_rows(rows):
    """Lists of ids -> lists of one length, [PAD] at the ends."""
    width = max((len(row) for row in rows), default=0)
    return [row + [PAD] * (width - len(row)) for row in rows]
