"""Marks in passages: word for word, escaped, whatever the text holds; and what the demo page shows around them."""

import re
from html import unescape
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_builders.labels.quotes import place, verbatim
from data_builders.records import Passage
from rag_ft.app import Found
from rag_ft.app.demo_html import TEMPLATES, documents_html, lines_html, passages_html, start_html, turn_html
from rag_ft.app.demo_talk import Said, Turn
from rag_ft.app.demo_words import LANGUAGES, WORDS, preferred
from rag_ft.app.highlight import marked, stands
from rag_ft.generator import Answer
from rag_ft.prompting.parse import Judgement, Quote

EVIL = '<img src=x onerror="alert(1)"><script>alert(2)</script> {{evil}} ${evil} `evil` [x](javascript:alert(3))'


class Reader(HTMLParser):
    """Lists the tags and attributes of a page, and its text."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attributes]

    def handle_data(self, data):
        self.text += data


def answer(text="24 months [1]", **more):
    fields = {
        "abstained": False,
        "citations": (),
        "relevance": (),
        "analysis": "",
        "well_formed": True,
        "output": text or "",
        "prompt_tokens": 1,
        "output_tokens": 1,
        "seconds": 1.26,
    }
    return Answer(answer=text, **{**fields, **more})


def turn(*answers, texts=("The warranty is 24 months. Nobody knows more.", "Tea is hot."), question="How long?"):
    found = tuple(
        Found(Passage(f"p{number}", "A title", text), f"{number}.pdf", number, 0.5)
        for number, text in enumerate(texts, start=1)
    )
    names = ("tuned", "base")
    return Turn(question, found, {name: Said(one.output, one) for name, one in zip(names, answers, strict=False)})


class TestMarked:
    @pytest.mark.parametrize(
        ("text", "quotes", "wanted"),
        [
            ("The warranty is 24 months.", ["24 months"], "The warranty is <mark>24 months</mark>."),
            ("The Warranty\n is long.", ["the warranty is"], "<mark>The Warranty\n is</mark> long."),
            ("say “yes”—now", ['say "yes" - now'], "<mark>say “yes”—now</mark>"),
            ("one two three", ["one two", "two three"], "<mark>one two three</mark>"),
            ("one two three", ["three", "one"], "<mark>one</mark> two <mark>three</mark>"),
            ("one two", ["four", ""], "one two"),
            ("a < b & c", ["< b"], "a <mark>&lt; b</mark> &amp; c"),
            ("earth and art", ["art"], "earth and <mark>art</mark>"),
            ("보증 기간은 24개월이다.", ["보증 기간은 24개월"], "<mark>보증 기간은 24개월</mark>이다."),
            ("", ["x"], ""),
        ],
        ids=lambda value: repr(value)[:30],
    )
    def test_what_stands_word_for_word_is_marked_and_everything_escaped(self, text, quotes, wanted):
        assert str(marked(text, quotes)) == wanted

    @given(st.text(max_size=60), st.lists(st.text(max_size=12), max_size=3))
    def test_no_text_becomes_a_tag_or_is_lost(self, text, quotes):
        html = str(marked(text, quotes))
        assert set(re.findall(r"<[^>]*>?", html)) <= {"<mark>", "</mark>"}
        assert html.count("<mark>") == html.count("</mark>")
        assert unescape(re.sub("</?mark>", "", html)) == text

    def test_place_is_where_the_verbatim_stretch_stands(self):
        text = "party art"
        start, end = place("ART", text)
        assert (start, end) == (6, 9)
        assert text[start:end] == verbatim("ART", text) == "art"
        assert place("nothing of it", text) == (0, 0)
        assert not stands("nothing of it", text)


class TestTurns:
    def test_quotes_are_marked_in_the_passage_they_name_and_nowhere_else(self):
        one = answer(
            citations=(Quote(1, "the warranty is 24 months", "why"), Quote(2, "The warranty is 24 months", ""))
        )
        html = passages_html(turn(one), "en")
        assert html.count("<mark>") == 1
        assert "<mark>The warranty is 24 months</mark>." in html
        first, second = html.split('id="passage-2"')
        assert " open" in first.partition('id="passage-1"')[2][:10]
        assert not second.startswith(" open")

    def test_a_passage_over_two_pages_names_both_and_its_quote_the_one_it_stands_on(self):
        text = "The pump is green. The valve is red."
        found = Found(Passage("p", "Manual", text), "a.pdf", 3, 0.5, pages=((0, 3), (19, 4)))
        one = answer(citations=(Quote(1, "The valve is red.", ""),))
        shown = Turn("Which?", (found,), {"tuned": Said(one.output, one)})
        assert "a.pdf, pages 3-4<" in passages_html(shown, "en")
        assert "a.pdf, 3-4쪽<" in passages_html(shown, "ko")
        quote = turn_html(shown, "en", current=True)
        assert "a.pdf, page 4<" in quote
        assert "page 3" not in quote

    def test_quotes_that_stand_nowhere_are_said_not_to(self):
        one = answer(citations=(Quote(1, "It lasts for ever.", ""), Quote(7, "The warranty", "")))
        html = turn_html(turn(one), "en", current=True)
        assert WORDS["en"]["not_verbatim"] in html
        assert WORDS["en"]["no_such_passage"] in html
        assert '"#passage-7"' not in html
        assert "<mark>" not in passages_html(turn(one), "en")

    def test_without_quotes_the_answer_itself_is_marked_and_the_legend_says_so(self):
        html = passages_html(turn(answer("24 months [1]")), "en")
        assert "<mark>24 months</mark>" in html
        assert WORDS["en"]["legend_answer"] in html
        assert WORDS["en"]["legend_quotes"] not in html
        assert html.count(WORDS["en"]["has_answer"]) == 1
        assert ">quoted<" not in html

    def test_judgements_of_two_generators_are_told_apart(self):
        judged = (Judgement(1, True, "says it"), Judgement(2, False, "about tea"))
        html = passages_html(turn(answer(relevance=judged), answer(relevance=judged[1:])), "en")
        text = " ".join(Reader(html).text.split())
        assert "✓ Tuned: relevant" in text
        assert text.count("✗ Tuned: not relevant") == 1
        assert text.count("✗ Base: not relevant") == 1
        assert "about tea" in text

    def test_marks_in_the_answer_lead_to_passages_that_are_shown(self):
        html = turn_html(turn(answer("24 months [1] [2, 9] [1,2]")), "en", current=True)
        assert '[<a href="#passage-1">1</a>]' in html
        assert '[<a href="#passage-1">1</a>, <a href="#passage-2">2</a>]' in html
        assert "[2, 9]" in html
        assert "#passage" not in turn_html(turn(answer("24 months [1]")), "en", current=False)

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_abstention_silence_and_failure_are_said(self, language):
        words = WORDS[language]
        assert words["abstained"] in turn_html(turn(answer(None, abstained=True)), language, current=True)
        assert words["no_answer"] in turn_html(turn(answer(None)), language, current=True)
        failed = Turn("q", (), {"tuned": Said("", None, "failed"), "base": Said("", None, "The server is down.")})
        html = turn_html(failed, language, current=True)
        assert words["failed"] in html
        assert "The server is down." in html

    @pytest.mark.parametrize("route", ["few", "all"])
    def test_which_try_of_self_route_answered_is_said(self, route):
        html = turn_html(turn(answer(route=route)), "en", current=True)
        assert WORDS["en"][f"route_{route}"].format(few=5) in html

    def test_nothing_from_outside_becomes_markup(self):
        evil = answer(
            EVIL,
            citations=(Quote(1, EVIL, EVIL), Quote(9, EVIL, EVIL)),
            relevance=(Judgement(1, True, EVIL),),
            analysis=EVIL,
            output=EVIL,
        )
        shown = turn(evil, evil, texts=(EVIL,), question=EVIL)
        found = Found(Passage("p", EVIL, EVIL), EVIL, 1, 1.0)
        shown = Turn(EVIL, (found, *shown.found), shown.said)
        growing = Turn(EVIL, (found,), {"tuned": Said(EVIL), "base": Said("", None, EVIL)})
        pages = [
            turn_html(shown, "en", current=True),
            turn_html(growing, "en", current=True),
            passages_html(shown, "ko"),
            documents_html({EVIL: 1}, [EVIL], "en", megabytes=20),
            lines_html([EVIL], "en"),
        ]
        for html in pages:
            read = Reader(html)
            assert "alert(1)" in read.text
            assert not {"img", "script"} & set(read.tags)
            assert not [name for name in read.attributes if name.startswith("on")]
            assert "javascript:" not in "".join(re.findall(r'href="[^"]*"', html))
            assert not set("{}$`") & set(html)


class TestWords:
    def test_both_languages_have_the_same_sentences_with_the_same_places(self):
        assert WORDS["en"].keys() == WORDS["ko"].keys()
        for key, english in WORDS["en"].items():
            places = set(re.findall(r"\{\w+\}", english))
            assert places == set(re.findall(r"\{\w+\}", WORDS["ko"][key])), key

    def test_no_sentence_is_unused(self):
        folder = TEMPLATES.parent
        code = "\n".join(path.read_text() for path in [*folder.glob("demo*.py"), *folder.glob("templates/*")])
        words = (folder / "demo_words.py").read_text()
        code = code.replace(words, words.partition("WORDS: dict")[2])
        composed = {"route_few", "route_all", "tuned", "base"}
        unused = [key for key in WORDS["en"] if key not in composed and not re.search(rf"[\"'.]{key}\b", code)]
        assert unused == []

    @pytest.mark.parametrize(
        ("accepted", "wanted"),
        [("ko-KR,ko;q=0.9,en;q=0.8", "ko"), ("en-GB,ko;q=0.5", "en"), ("fr,ko;q=0.5", "ko"), ("fr", "en"), ("", "en")],
    )
    def test_page_opens_in_the_first_language_it_has(self, accepted, wanted):
        assert preferred(accepted) == wanted

    def test_korean_page_says_nothing_in_english(self):
        html = turn_html(turn(answer(relevance=(Judgement(1, True, ""),))), "ko", current=True)
        html += passages_html(turn(answer()), "ko") + start_html("ko") + documents_html({}, [], "ko", megabytes=20)
        for key in ("done", "legend_answer", "start", "kinds"):
            assert WORDS["en"][key].split("{")[0][:12] not in html
