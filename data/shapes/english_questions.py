"""All the ways in which English asks: training draws from QUESTIONS.

{a}, {b} are nouns, {as}, {bs} their plurals, {link} a relation, {place} a place. "(x|y|)" is x, y
or nothing, and a word in capitals stands for the entry of MACROS. The first expansion of the first
template is the plain way to ask. To add a phrasing is to add a line; a test reads each back.
"""

MACROS = dict(
    IMAGE="(picture|image|photo)",
    THIS="(the|this|that)",
    THING="(thing|object)",
    THINGS="(things|objects)",
    WHAT="(what|which)",
    PAUSE="(,|)",
    SAY="(tell me|say|show me|find|can you (tell me|say|find|see|show me)|do you see)",
    WHERE="(||here|there|in THIS IMAGE|in it)",
    SEE="(do you see|can you (see|find)|do i see|can i see|you (see|find|can see)|are there"
    "|there are|are here)",
    LOOK="(look (at THIS IMAGE|here|at it|there|up|down|left|right|above|below|up and down"
    "|left and right|left or right|to the left and to the right|here and there|at the THINGS"
    "|at (the|any) (colour|size|shape|number) of the THINGS|)|find out|count and look)",
)
# What may stand before and behind every question.
START = (
    "(||(in THIS IMAGE|here|of all you see|in what you see|LOOK|LOOK and (say|tell me)"
    "|(say|tell me|say it|tell me this|can you (say|tell me|see|show me))"
    "|i (see|have|show you) (a|this|some) IMAGE|this is (a|some|the) IMAGE|you see a IMAGE"
    "|here is (a|the) IMAGE|as you (see|look|can see)) PAUSE)"
)
END = "(?|)"


def about(kind, templates):
    """Templates that ask for a colour, a shape or a size alike."""
    return tuple(template.replace("KIND", kind) for template in templates)


ATTRIBUTE = (
    "WHAT KIND is THIS {a}",
    "WHAT KIND does THIS {a} have",
    "what is the KIND of THIS {a} WHERE",
    "SAY the KIND of THIS {a}",
    "SAY WHAT KIND THIS {a} (is|has)",
    "THIS {a} (is|has) WHAT KIND",
    "of WHAT KIND is THIS {a} WHERE",
    "THIS {a} WHERE PAUSE WHAT KIND (is it|has it|it is|does it have)",
    "(find|look at|see) THIS {a} and (say|tell me|see|show me) (the KIND|WHAT KIND it (is|has))",
    "(there is|i see|here is|you see|it has) a {a} WHERE PAUSE "
    "WHAT (KIND is it|KIND does it have|is the KIND|is the KIND of it)",
    "what kind of KIND is THIS {a}",
    "what kind of KIND does THIS {a} have",
    "WHAT KIND do you see THIS {a} (as|in)",
    "say the same KIND as that of THIS {a}",
    "WHAT is the KIND that THIS {a} has",
    "look where THIS {a} is and (say|tell me) the KIND",
    "WHAT KIND (do|can) (you|i) see (on|in|at) THIS {a}",
    "KIND of THIS {a}",
    "how is the KIND of THIS {a}",
)
QUESTIONS = dict(
    existence=(
        "is there (a|any|one|some) {a} WHERE",
        "are there (any|some|) {as} WHERE",
        "(do|can) (you|i) (see|find) (a|any|some|one|the) {a} WHERE",
        "(do|can) (you|i) (see|find|count) (any|some|) {as} WHERE",
        "does THIS IMAGE (show|have) (a|any|one) {a}",
        "does THIS IMAGE (show|have) (any|some|) {as}",
        "has THIS IMAGE (a|any|one) {a}",
        "is (a|any|one) {a} (here|there|in THIS IMAGE|here or there)",
        "are (any|some|) {as} (here|there|in THIS IMAGE|to see here)",
        "is there a THING (here|) that is a {a}",
        "is (one|any|some) of THIS THINGS a {a}",
        "a {a} PAUSE (is it (here|there)|do you see (it|one)|can you (see|find|show me) (it|one))",
        "(find|show me|look for) a {a} PAUSE (is it|is there one|is one) (here|in THIS IMAGE)",
        "is there as much as one {a} WHERE",
        "are there one or (more|many) {as} WHERE",
        "are there no fewer than one {a} WHERE",
        "is there a {a} of any kind WHERE",
        "(any|some) {as} WHERE",
        "is it a IMAGE of a {a}",
        "is there a number of {as} WHERE",
    ),
    count=(
        "how many {as} are there WHERE",
        "how many {as} SEE WHERE",
        "how many {as} (does THIS IMAGE (have|show)|has THIS IMAGE|are in THIS IMAGE)",
        "count the {as} WHERE",
        "(can|do) you count the {as} WHERE",
        "SAY (the|a|that) number of {as} WHERE",
        "SAY how many {as} SEE",
        "what is the (number|count) of {as} WHERE",
        "WHAT number of {as} SEE WHERE",
        "how many of the THINGS (here|there|in THIS IMAGE|) are {as}",
        "how many THINGS (here|there|in THIS IMAGE|) are {as}",
        "(of|as to) (the|) {as} WHERE PAUSE how many SEE",
        "{as} PAUSE (how many|what number) (SEE|)",
        "how (large|big|small|much) is the number of {as} WHERE",
        "(there are|you see|i see) how many {as} WHERE",
        "the number of {as} WHERE is (what|which)",
        "look at the {as} WHERE and (count|say how many|tell me how many|say the number)",
        "say the same number as there are {as} WHERE",
        "(the|) number of {as} WHERE",
        "how many {as} WHERE",
    ),
    colour=about("colour", ATTRIBUTE),
    shape=about("shape", ATTRIBUTE)
    + (
        "what is THIS {a} WHERE",
        "(what|which) (kind of|) THING is THIS {a}",
        "(tell me|say|show me) what (kind of THING|) THIS {a} is",
        "what (kind of THING|) do you see THIS {a} as",
    ),
    size=about("size", ATTRIBUTE)
    + (
        "how (large|big|small) is THIS {a} WHERE",
        "is THIS {a} (small or (large|big)|(large|big) or small)",
        "is THIS {a} (a (large|big) one or a small one|a small one or a (large|big) one)",
        "is THIS {a} (small or is it (large|big)|(large|big) or is it small)",
        "SAY how (large|big|small) THIS {a} is",
        "is it a (small or a (large|big)|(large|big) or a small) {a}",
        "how much of a size has THIS {a}",
    ),
    relation=(
        "is THIS {a} {link} THIS {b}",
        "is THIS {a} (here|there|in THIS IMAGE) {link} THIS {b}",
        "(do|can) (you|i) (see|find) THIS {a} {link} THIS {b} WHERE",
        "does THIS IMAGE (show|have) THIS {a} {link} THIS {b}",
        "THIS {a} PAUSE is (it|that) {link} THIS {b}",
        "{link} THIS {b} PAUSE (is (there|that|it)|do you see|can you (see|find)) THIS {a}",
        "look {link} THIS {b} PAUSE (is it|do you see) THIS {a}",
        "is it THIS {a} that (is|you see) {link} THIS {b}",
        "is THIS THING {link} THIS {b} THIS {a}",
        "look where THIS {b} is PAUSE is THIS {a} {link} it",
        "(find|look at|see) THIS {a} PAUSE is it {link} THIS {b}",
        "does THIS {a} have a place {link} THIS {b}",
        "has THIS IMAGE THIS {a} {link} THIS {b}",
        "THIS {a} is {link} THIS {b} PAUSE (do|can) you see (it|that|this)",
        "THIS {a} {link} THIS {b} PAUSE is it (there|here|so)",
        "THIS {a} is {link} THIS {b}",
    ),
    compare=(
        "are there more {as} than {bs} WHERE",
        "are there fewer {bs} than {as} WHERE",
        "(do|can) (you|i) (see|find|count) (some|any|) more {as} than {bs} WHERE",
        "(do|can) (you|i) (see|find|count) (some|any|) fewer {bs} than {as} WHERE",
        "(does THIS IMAGE (show|have)|has THIS IMAGE) more {as} than {bs}",
        "(does THIS IMAGE (show|have)|has THIS IMAGE) fewer {bs} than {as}",
        "is the number of {as} WHERE more than (the number|that) of (the|) {bs}",
        "is the number of {bs} WHERE fewer than (the number|that) of (the|) {as}",
        "are there more of the {as} WHERE than of the {bs}",
        "are there fewer of the {bs} WHERE than of the {as}",
        "are (the|) {as} more (in number|) than (the|) {bs} WHERE",
        "are (the|) {bs} fewer (in number|) than (the|) {as} WHERE",
        "are more of the THINGS (here|there|) {as} than {bs}",
        "are fewer of the THINGS (here|there|) {bs} than {as}",
        "more {as} than {bs} WHERE PAUSE (is it so|do you see (it|that))",
        "fewer {bs} than {as} WHERE PAUSE (is it so|do you see (it|that))",
        "more {as} than {bs} WHERE",
        "fewer {bs} than {as} WHERE",
    ),
    place=(
        "where is THIS {a}",
        "where (do|can) (you|i) (see|find) THIS {a}",
        "where in THIS IMAGE is THIS {a}",
        "(tell me|say|show me|can you (say|see|tell me|show me)) where THIS {a} is",
        "THIS {a} is where",
        "(find|look for) THIS {a} PAUSE where is it",
        "THIS {a} PAUSE where is it",
        "where does THIS IMAGE (show|have) THIS {a}",
        "(there is|i see|here is) a {a} WHERE PAUSE where is it",
        "at WHAT place is THIS {a}",
    ),
    content=(
        "what is at the {place}",
        "what (do|can) (you|i) (see|find) at the {place} WHERE",
        "WHAT THING is at the {place} WHERE",
        "(tell me|say|show me|can you (say|see|tell me|show me)) what is at the {place}",
        "at the {place} PAUSE what (is there|do you see)",
        "look at the {place} PAUSE what is (it|there)",
        "what is (in|at) the {place} (of THIS IMAGE|)",
        "what does THIS IMAGE (show|have) at the {place}",
        "what kind of THING (is|do you see) at the {place}",
        "at the {place} is what",
    ),
    brief=(
        "describe THIS IMAGE (briefly|in short)",
        "(briefly|in short) PAUSE (what do you see|describe THIS IMAGE|what is in THIS IMAGE)",
        "what do you see PAUSE (briefly|in short)",
        "(tell me|say|show me) (briefly|in short) what (you see|is in THIS IMAGE|THIS IMAGE shows)",
        "(can you|) briefly (describe|say|tell me) what you see",
        "a short description of THIS IMAGE",
    ),
    normal=(
        "describe THIS IMAGE",
        "what (do|can) (you|i) (see|find) WHERE",
        "what is (here|there|in THIS IMAGE|to see here|in it)",
        "what does THIS IMAGE (show|have)",
        "(tell me|say|can you (say|tell me)) what (you see|is in THIS IMAGE|is here|there is)",
        "WHAT THINGS (do you see|can you find|are there|does THIS IMAGE (show|have))",
        "(can you describe|say) what THIS IMAGE shows",
        "what is THIS IMAGE of",
        "a description of THIS IMAGE",
    ),
    detailed=(
        "describe THIS IMAGE in detail",
        "in detail PAUSE (what do you see|describe THIS IMAGE|what is in THIS IMAGE)",
        "what do you see PAUSE (in detail|and where)",
        "(tell me|say|show me) in detail what (you see|is in THIS IMAGE|THIS IMAGE shows)",
        "(tell me|say|show me) what (is|you see) where",
        "what THINGS (do you see|are there) and where (are they|is it)",
        "describe THIS IMAGE with the places",
        "a description of THIS IMAGE in detail",
    ),
    list=(
        "list the shapes WHERE",
        "WHAT shapes SEE WHERE",
        "name the shapes WHERE",
        "(tell me|say|show me) the shapes WHERE",
        "what are the shapes WHERE",
        "(make a|a) list of the shapes WHERE",
        "WHAT shapes does THIS IMAGE (show|have)",
    ),
)
