"""Korean letters on pictures: fonts that have them, and Latin ones in their place ("ppalgan won").

The romanisation is the Revised one of 2000, syllable by syllable and without its changes of sound.
"""

# Fonts with Korean letters, as Linux, Windows and macOS name them.
KOREAN_FONTS = (
    "Noto Sans CJK KR", "Noto Sans KR", "NanumGothic", "UnDotum", "Malgun Gothic",
    "Apple SD Gothic Neo", "AppleGothic",
)  # fmt: skip
INITIAL = "g,kk,n,d,tt,r,m,b,pp,s,ss,,j,jj,ch,k,t,p,h"
VOWEL = "a,ae,ya,yae,eo,e,yeo,ye,o,wa,wae,oe,yo,u,wo,we,wi,yu,eu,ui,i"
FINAL = ",k,k,k,n,n,n,t,l,k,m,p,l,l,p,l,m,p,p,t,t,ng,t,t,k,t,p,t"
INITIAL, VOWEL, FINAL = (letters.split(",") for letters in (INITIAL, VOWEL, FINAL))
FIRST_SYLLABLE, LAST_SYLLABLE = 0xAC00, 0xD7A3


def is_syllable(letter):
    return FIRST_SYLLABLE <= ord(letter) <= LAST_SYLLABLE


def romanise(letter):
    """A Korean syllable in Latin letters; any other letter as it is."""
    if not is_syllable(letter):
        return letter
    initial, rest = divmod(ord(letter) - FIRST_SYLLABLE, len(VOWEL) * len(FINAL))
    vowel, final = divmod(rest, len(FINAL))
    return INITIAL[initial] + VOWEL[vowel] + FINAL[final]
