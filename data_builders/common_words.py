"""Closed word lists of the answer matcher: words that as an answer, or in a question, say too little. No code."""

# ruff: noqa: RUF001 - Cyrillic words are meant to be Cyrillic
from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


VERDICTS = _words(
    """
    yes no true false supports supported refutes refuted
    예 네 아니오 아니요 참 거짓 はい いいえ 是 否 是的 不是 对 不对 ja nein oui non sí да нет
    """
) | {"not enough info"}  # answers that are a verdict on the question: a passage does not say them about it

FUNCTION_WORDS = _words(
    """
    a about after all also although an and any are as at be because been before being both but by can could did do
    does during each for from had has have he her him his how however i if in into is it its many me more most much no
    not of on one only or other out over s she so some such than that the their them then there these they this those
    through to under until up us was we were what when where which while who whom whose why will with would you your
    der das dem des ein eine einer und ist sind wer wie wo wann welche welcher welches
    le la les un une du des de et est sont était qui que quoi quel quelle où quand combien
    el los las uno una del y es fue quién qué cuál cuándo dónde cuánto cuántos en por con
    в и на с по из от к у за о об что кто где когда как какой какая какое какие сколько это был была было были
    이 그 저 것 수 무엇 무엇인가 무엇인가요 누구 누구인가 누구인가요 누가 언제 언제인가 언제인가요 어디 어디인가
    어디인가요 어디에 어디에서 어느 몇 몇인가 무슨 어떤 왜 어떻게 얼마나 있는 있는가 하는 한 된 는 은 가 를 을 의 에
    """
)  # a question's words beyond these are its content words

UNSPACED_FUNCTION_SIGNS = frozenset("的是了在和与及或吗呢什么么哪谁多少几何个有为之其年月日人")

COMMON_WORDS = FUNCTION_WORDS | _words(
    """
    zero two three four five six seven eight nine ten eleven twelve hundred thousand million billion first second third
    american april area around august based became began best born british called century city country day death
    december directed early end english february film following french general german government great group high
    history home house ii include including international january john july june king known large largest later led
    life long made major march may member modern music name national new north november now number october often
    part people period place political population power president public released school september series several since
    small son south state states system th third time united university use used war well west east western work world
    written year years men women man woman god money water black white red blue green
    none nothing both neither unknown same different few half once twice left right
    """
)  # counted: what 4 % or more of 11,500 English Wikipedia passages hold; beside them numbers, colours and the like
