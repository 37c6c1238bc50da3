"""Ways to ask in English that training never has, of the words that it has: for tests alone."""

from data.shapes.templates import about

ATTRIBUTE = (
    "the KIND of THIS {a} is (what|which)",
    "what KIND has THIS {a}",
    "THIS {a} PAUSE (tell me|say) the KIND of it",
    "do you see THIS {a} PAUSE what KIND is it",
    "which is the KIND of THIS {a}",
    "can you see what KIND THIS {a} here is",
    "i see THIS {a} PAUSE say what KIND you see",
)
HELD_OUT = dict(
    existence=(
        "a {a} PAUSE is there one WHERE",
        "do you find a {a} to show me",
        "are there {as} to see WHERE",
        "do you find any THING here that is a {a}",
        "of the THINGS you see PAUSE is any a {a}",
        "is there any one {a} to find WHERE",
    ),
    count=(
        "tell me the count of {as} WHERE",
        "what count of {as} do you see",
        "how many {as} can you count WHERE",
        "how many are the {as} that you see",
        "say PAUSE as a number PAUSE how many {as} there are",
        "how many are there of the {as}",
    ),
    colour=about("colour", ATTRIBUTE),
    shape=about("shape", ATTRIBUTE) + ("can you tell me what THIS {a} is",),
    size=about("size", ATTRIBUTE) + ("how (big|large) do you see THIS {a}",),
    relation=(
        "do you see that THIS {a} is {link} THIS {b}",
        "THIS {a} PAUSE can you see it {link} THIS {b}",
        "is there THIS {a} {link} THIS {b}",
        "look at THIS {b} PAUSE is THIS {a} {link} it",
        "can you tell me PAUSE is it {link} THIS {b} that THIS {a} is",
        "say PAUSE do i see THIS {a} here {link} THIS {b}",
    ),
    compare=(
        "is it more {as} than {bs} that you see",
        "do you see that there are more {as} than {bs}",
        "is there a number of {as} that is more than that of {bs}",
        "than {bs} PAUSE are there more {as}",
        "do you see the {bs} as fewer than the {as}",
        "of the THINGS PAUSE are fewer {bs} than {as}",
    ),
    place=(
        "where is it that you see THIS {a}",
        "can you find where THIS {a} is",
        "THIS {a} PAUSE say where it is",
    ),
    content=("what can you find there at the {place}", "say what you see at the {place}"),
    brief=("what is in THIS IMAGE PAUSE in short", "show me THIS IMAGE briefly"),
    normal=("say what there is to see", "what do you see as you look at THIS IMAGE"),
    detailed=("show me THIS IMAGE in detail", "say what you see and where it is"),
    list=("say what the shapes are WHERE", "what are the shapes that you see"),
)
