"""Questions beside the other questions and the other passages: repeats, answers elsewhere, what is asked about."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from test_synthesis_filters import ADA, LIGHTHOUSE, settings, written

from data_builders.manifest import Tally
from data_builders.records import GoldEvidence, Passage, Question
from data_builders.servers import Reply
from data_builders.synthesis.links import linked
from data_builders.synthesis.others import Kept, answered_elsewhere, without_repeats
from data_builders.synthesis.plan import plan, synthesis_calls
from data_builders.synthesis.settings import FiltersSettings
from data_builders.synthesis.written import Synthesis, write_synthesis


def kept(number: int, question: str, answer: str, **changes: object) -> Kept:
    fields = {"id": f"q{number}", "gold": (f"p{number}",), **changes}
    return Kept((number, 0), Question(question=question, answers=(answer,), **fields), (number,))


def verdicts(judged: object) -> list[str | None]:
    return [rejection and rejection.why for _, rejection in judged]


class TestRepeats:
    def test_the_first_of_two_alike_stays(self):
        questions = [
            kept(0, "When was the old lighthouse of Velmoth in the north built?", "1871"),
            kept(1, "when was the old lighthouse of Velmoth, in the north, built", "1871"),
            kept(2, "When was the old lighthouse of Velmoth in the north first built?", "1871"),
            kept(3, "When was the old lighthouse of Velmoth in the north painted?", "1901"),
        ]
        earlier = 'it asks what "When was the old lighthouse of Velmoth in the north built?" asks'
        assert verdicts(without_repeats(questions, [], 0.8)) == [None, earlier, earlier, None]
        assert verdicts(without_repeats(questions, [], None)) == [None, earlier, None, None]

    def test_one_wording_with_two_answers_means_two_things_and_goes_whole(self):
        questions = [kept(0, "Who built the bridge?", "Ada"), kept(1, "Who built the bridge?", "Bo")]
        assert verdicts(without_repeats(questions, [], 0.8)) == 2 * [
            "the same words ask for different answers in different passages"
        ]

    def test_what_a_source_asks_is_not_asked_again(self):
        own = Question("o", "Who built the bridge of Velmoth?", ("Ada Lund",), ("p9",))
        again = [kept(0, "Who built the bridge of Velmoth", "Ada"), kept(1, "Who sold the bridge of Velmoth?", "Bo")]
        assert verdicts(without_repeats(again, [own], 0.8)) == [
            'it asks what "Who built the bridge of Velmoth?" asks',
            None,
        ]


class TestElsewhere:
    CORPUS = (
        Passage("p0", "Velmoth", "The lighthouse of Velmoth was built in 1871."),
        Passage("p1", "Velmoth", "Copied: The lighthouse of Velmoth was built in 1871. More follows."),
        Passage("p2", "Torda", "Work on the lighthouse of Velmoth ended in 1871, says a stone."),
        Passage("p3", "Torda", "The lighthouse of Torda was built in 1872."),
        Passage("p4", "Elsewhere", "The lighthouse of Velmoth dates from 1871.", split="test"),
    )

    def judged(self, found: Sequence[int], split: str = "", **filters: object) -> tuple[tuple[str, ...], str | None]:
        evidence = (GoldEvidence("p0", "The lighthouse of Velmoth was built in 1871.", ""),)
        one = kept(0, "When was the lighthouse of Velmoth built?", "1871", evidence=evidence, split=split)
        search = lambda questions, depth: [found] * len(questions)  # noqa: E731
        [(after, rejection)] = answered_elsewhere([one], self.CORPUS, search, FiltersSettings.model_validate(filters))
        return after.question.alternatives, rejection and rejection.why

    def test_another_passage_with_the_answer_makes_a_question_ambiguous(self):
        assert self.judged([0, 3, 2])[1] == 'passage p2 holds the answer "1871" too'

    def test_by_setting_it_becomes_one_that_supports_the_answer_too(self):
        assert self.judged([0, 3, 2], elsewhere="alternative") == (("p2",), None)

    def test_a_passage_with_the_very_quote_is_no_rival(self):
        assert self.judged([0, 1, 3]) == (("p1",), None)

    def test_other_passages_leave_a_question_as_it_is(self):
        assert self.judged([0, 3]) == ((), None)

    def test_passages_of_another_split_do_not_count(self):
        assert self.judged([4], split="train") == ((), None)
        assert self.judged([4])[1] is not None

    def test_only_as_many_as_asked_for_are_looked_at(self):
        assert self.judged([0, 3, 2], searched=1) == ((), None)


class TestPlan:
    CORPUS = tuple(Passage(f"p{n}", f"Town {n}", f"Town {n} sells salt and rope.") for n in range(40))

    def test_the_seed_draws_and_a_smaller_cap_is_the_beginning_of_a_larger(self):
        few, more = (plan(settings(passages=n), self.CORPUS, 1) for n in (5, 9))
        assert [one.positions for one in more[:5]] == [one.positions for one in few]
        assert plan(settings(passages=5), self.CORPUS, 2) != few
        assert sorted(one.positions for one in plan(settings(), self.CORPUS, 1)) == [(n,) for n in range(40)]

    def test_short_passages_are_not_asked_about(self):
        corpus = (Passage("a", "", "One two three."), Passage("b", "", "One two three four."))
        assert [one.positions for one in plan(settings(min_words=4), corpus, 1)] == [(1,)]

    def test_a_call_shows_its_passage_and_carries_a_schema(self):
        [call] = synthesis_calls(settings(), (LIGHTHOUSE,), 1)
        assert LIGHTHOUSE.text in call.messages[0]["content"]
        assert "Write 2 questions." in call.messages[0]["content"]
        assert call.schema["properties"]["questions"]["items"]["required"] == ["question", "answer", "quote"]

    def test_two_passages_are_shown_where_a_title_links_them(self):
        found = plan(settings(hops=1.0), (ADA, LIGHTHOUSE), 1)
        assert {one.positions: one.link for one in found} == {(0, 1): "Velmoth", (1,): ""}
        call = next(call for call in synthesis_calls(settings(hops=1.0), (ADA, LIGHTHOUSE), 1) if "2>" in str(call))
        assert "does not name Velmoth" in call.messages[0]["content"]
        assert call.schema["properties"]["questions"]["items"]["required"][2:] == ["first_quote", "second_quote"]

    def test_the_share_of_hops_is_about_kept(self):
        towns = [Passage(f"t{n}", f"Velm{n:03}", f"Velm{n:03} sells salt.") for n in range(200)]
        people = [Passage(f"a{n}", f"Ada{n:03} Lund", f"Ada{n:03} Lund lives in Velm{n:03}.") for n in range(200)]
        found = plan(settings(hops=0.5), [*people, *towns], 1)
        pairs = [one for one in found if len(one.positions) == 2]
        assert all(second == first + 200 for first, second in (one.positions for one in pairs))
        assert 70 <= len(pairs) <= 130  # half of 200; three standard deviations are 21


class TestLinks:
    def test_the_rarest_title_is_taken_and_common_ones_never(self):
        towns = [Passage("s", "Salt Guild", "A guild."), Passage("v", "Velmoth", "A town.")]
        people = [Passage(f"a{n}", f"Ada {n}", "She joined the Salt Guild.") for n in range(70)]
        lund = Passage("l", "Lund", "Lund of the Salt Guild lives in Velmoth.")
        found = linked([*towns, *people, lund], range(2, 73), (), 1)
        assert {position: link.name for position, link in found.items()} == {72: "Velmoth"}

    def test_a_korean_title_is_found_with_its_particle(self):
        corpus = [Passage("a", "김도현", "김도현은 부산항에서 태어났다."), Passage("b", "부산항", "부산항은 크다.")]
        assert linked(corpus, [0], (), 1)[0].name == "부산항"
        other = [Passage("a", "김도현", "김도현은 부산항만공사에서 일했다."), corpus[1]]
        assert linked(other, [0], (), 1) == {}

    def test_a_pair_is_of_one_split_and_one_source(self):
        def pair(one: dict[str, str], other: dict[str, str], sources: Sequence[str] = ()) -> int:
            corpus = [
                Passage(**{"id": "a", "title": "Lund", "text": "Lund lives in Velmoth.", **one}),
                Passage(**{"id": "b", "title": "Velmoth", "text": "A town.", **other}),
            ]
            return len(linked(corpus, [0], sources, 1))

        assert pair({"split": "train"}, {"split": "train"}) == pair({"split": "train"}, {}) == 1
        assert pair({"split": "train"}, {"split": "test"}) == 0
        assert pair({"id": "one:a"}, {"id": "two:b"}, ["one", "two"]) == 0
        assert pair({"id": "one:a"}, {"id": "two:b"}) == 1  # a single source, whose ids have colons

    def test_a_passage_without_a_title_can_begin_a_pair(self):
        corpus = [Passage("a", "", "Lund lives in Velmoth."), Passage("b", "Velmoth", "A town.")]
        assert linked(corpus, [0], (), 1)[0].name == "Velmoth"

    def test_a_title_that_is_a_part_of_another_word_is_another_title(self):
        corpus = [Passage("a", "Art", "Art lives in Bartholm."), Passage("b", "Bartholm", "A town.")]
        assert linked(corpus, [0], (), 1)[0].name == "Bartholm"
        same = [Passage("a", "Velmoth", "Velmoth Bay is cold."), Passage("b", "Velmoth Bay", "A bay.")]
        assert linked(same, [0], (), 1) == {}


class TestWriting:
    def test_only_a_quote_with_the_answer_is_said_to_state_it(self):
        def reason(**changes: str) -> str:
            reply = Reply(json.dumps({"questions": [written(**changes)]}), prompt_tokens=300, output_tokens=20)
            [question], _ = self.write([reply])
            return question.evidence[0].reason

        assert reason() == "It states the answer."
        beside = reason(question="What does the keeper of Velmoth sell?", answer="rope")
        assert beside == "It is part of what answers the question."

    def test_tokens_and_money_of_all_replies_are_counted(self):
        tally = Tally()
        good = Reply(json.dumps({"questions": [written()]}), prompt_tokens=300, output_tokens=20)
        refused = Reply(None, prompt_tokens=250, output_tokens=0, failure="the server refused to answer: no")
        self.write([good, refused, Reply(None, failure="the connection broke: x", may_pass=True)], tally)
        assert (tally.counts["tokens read"], tally.counts["tokens written"]) == (550, 20)
        assert tally.counts["money"] == 0.6  # 550 at 0.001 and 20 at 0.0025

    def write(self, replies: Sequence[Reply], tally: Tally | None = None):
        prices = {"base_url": "http://127.0.0.1:1/v1", "model": "m", "input_price": 1000.0, "output_price": 2500.0}
        passages = [replace(LIGHTHOUSE, id=f"p{number}") for number in range(len(replies))]
        job = Synthesis(settings(endpoint=prices), passages, ["mine"], 1)
        planned = job.plan(Tally())
        asker = lambda calls: zip(calls, replies, strict=True)  # noqa: E731
        return write_synthesis(
            job, planned, asker, lambda questions, depth: [[]] * len(questions), (), tally or Tally()
        )
