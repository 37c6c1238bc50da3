"""Ways to ask in Korean that training never has, of the words that it has: for tests alone."""

from data.shapes.templates import about

ATTRIBUTE = (
    "{a} -을 보고 WHAT KIND -인지 TELL",
    "WHAT KIND -인지 TELL PAUSE {a} -은",
    "SEEN {a} -의 KIND -을 TELL",
    "FROM {a} -이 보이는데 KIND -은 무엇 -인가요",
    "WHAT KIND -의 것 -인가요 PAUSE {a} -은",
)
HELD_OUT = dict(
    existence=(
        "{a} -은 FROM 보이나요",
        "FROM {a} -을 볼 수 있는지 TELL",
        "{a} -을 FROM 찾을 수 있는지 TELL",
        "{a} PAUSE 하나라도 보이나요",
    ),
    count=(
        "FROM {as} -을 몇 개 찾을 수 있나요",
        "SEEN {as} -의 수 -을 TELL",
        "FROM {as} -이 몇 개 보이는지 TELL",
        "{as} PAUSE 몇 개 있어요",
        "SEEN {as} -을 세어 주세요",
    ),
    colour=about("색", ATTRIBUTE),
    shape=about("모양", ATTRIBUTE),
    size=about("크기", ATTRIBUTE),
    relation=(
        "{a} -이 {b} {link} -에 보이나요",
        "{b} -보다 {link} -에 {a} -이 있나요",
        "{b} -의 {link} -에 {a} -이 있는지 TELL",
        "SEEN {a} -은 {b} -보다 {link} -에 있나요",
    ),
    compare=(
        "FROM {bs} -보다 {as} -이 많이 보이나요",
        "{as} -의 수 -은 {bs} -의 수 -보다 더 많나요",
        "HERE {bs} -보다 {as} -이 많은지 TELL",
        "SEEN {bs} -은 {as} -보다 적은가요",
    ),
    place=("{a} -이 어디 -에서 보이는지 TELL", "{a} PAUSE 어디 -에 있어요"),
    content=("{place} -에 보이는 것 -을 TELL", "{place} -에 -은 WHAT 물체 -이 보이나요"),
    brief=("SEEN 것 -을 BRIEFLY DESCRIBE", "BRIEFLY PAUSE HERE 무엇 -이 있나요"),
    normal=("SEEN 것 -을 DESCRIBE", "FROM 무엇 -을 볼 수 있는지 TELL"),
    detailed=("SEEN 것 -을 DETAIL DESCRIBE", "DETAIL PAUSE HERE 무엇 -이 있나요"),
    list=("SEEN 모양 -을 나열해 주세요", "THIS IMAGE 모양 -의 목록 -을 TELL"),
)
