"""ALCE, the models that judge, and what they are shown: against values worked out by hand and against the models."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_rows import case

from data_builders.entailment import load_entailment
from data_builders.errors import RagFtError
from rag_ft.evaluation.judge import judge_messages, read_verdict, with_verdicts
from rag_ft.evaluation.metrics import METRICS
from rag_ft.evaluation.metrics.alce import Claim, claims, grounding, with_alce
from rag_ft.evaluation.notices import about_unjudged

SETTING = "evaluation.citation_nli"

A = ("Aldo", "Aldo was founded in 1801.", "gold")
B = ("Bexa", "Bexa was founded in 1802.", "")
C = ("", "Corin was born in 1801.", "")
SHOWN = (A, B, C)


# ALCE, by hand. `facts` says which sets of passages entail the sentence; every other set does not.


def verdict(*facts):
    sets = [set(fact) for fact in facts]
    return lambda numbers, sentence: set(numbers) in sets


@pytest.mark.parametrize(
    ("cited", "facts", "recall", "precision", "why"),
    [
        ((1,), [{1}], 1, 1, "one citation that supports"),
        ((1,), [], 0, 0, "one citation that does not"),
        ((), [], 0, 0, "no citation: nothing to be precise about is 0"),
        ((1, 2), [{1, 2}, {1}], 1, 1 / 2, "2 neither supports alone nor is missed: idle"),
        ((1, 2), [{1, 2}, {1}, {2}], 1, 1, "each supports alone, so neither is idle though either could go"),
        ((1, 2), [{1, 2}], 1, 1, "neither supports alone, both are needed"),
        ((1, 2), [{1}, {2}], 0, 0, "together they do not support, so every citation is wrong"),
        ((1, 2, 3), [{1, 2, 3}, {1, 2}], 1, 2 / 3, "3 is idle; without 1 or 2 it does not hold"),
        (
            (1, 2, 3, 4),
            [{1, 2, 3}, {1}],
            1,
            1,
            "the fourth is not looked at; without 2 or 3 the rest fails",
        ),
        ((1, 9), [{1}, {1, 9}], 0, 0, "a passage that is not there"),
        ((0,), [{0}, {4}], 0, 0, "[0] is not the last passage"),
    ],
)
def test_alce_judges_one_sentence_as_worked_out_by_hand(cited, facts, recall, precision, why):
    found = grounding([Claim("s", cited)], 4, verdict(*facts))
    assert (found.recall, found.precision) == pytest.approx((recall, precision)), why


def test_alce_adds_sentences_up_by_sentence_for_recall_and_by_citation_for_precision():
    told = [Claim("a", (1,)), Claim("b", (1, 2, 3)), Claim("c", ()), Claim("d", (9, 1))]
    facts = {"a": [{1}], "b": [{1, 2, 3}, {1}, {1, 2}, {1, 3}]}  # 2 and 3 are idle in b
    found = grounding(told, 3, lambda numbers, sentence: set(numbers) in facts.get(sentence, []))
    assert found.recall == 2 / 4
    assert found.precision == 2 / 4  # of the four citations that count: [1] in a, [1] in b; those of d do not count


def test_an_answer_without_a_sentence_scores_nothing_instead_of_being_skipped():
    found = grounding([], 3, verdict())
    assert (found.recall, found.precision) == (0, 0)


@settings(max_examples=200, deadline=None)
@given(
    told=st.lists(st.lists(st.integers(0, 5), max_size=5).map(tuple).map(lambda cited: Claim("s", cited)), max_size=5),
    facts=st.lists(st.frozensets(st.integers(1, 4), min_size=1), max_size=8),
)
def test_alce_stays_within_bounds_and_all_or_nothing_follows_the_model(told, facts):
    found = grounding(told, 4, verdict(*facts))
    assert 0 <= found.recall <= 1
    assert 0 <= found.precision <= 1
    nothing = grounding(told, 4, lambda numbers, sentence: False)
    assert (nothing.recall, nothing.precision) == (0, 0)
    everything = grounding(told, 4, lambda numbers, sentence: True)
    counted = [claim for claim in told if claim.cited and all(1 <= number <= 4 for number in claim.cited)]
    assert everything.recall == (len(counted) / len(told) if told else 0)
    assert everything.precision == (1 if counted else 0)


def self_reasoning(analysis, evidence="none", answer="1801"):
    return f"Relevance:\n[1] yes: x\nEvidence:\n{evidence}\nAnalysis: {analysis}\nAnswer: {answer}"


@pytest.mark.parametrize(
    ("style", "output", "expected"),
    [
        (
            "self_reasoning",
            self_reasoning("Aldo is older [1][2]. So it is. [3] Bexa is not [1, 3]."),
            [("Aldo is older .", (1, 2)), ("So it is.", ()), ("Bexa is not .", (3, 1, 3))],
        ),
        (
            "self_reasoning",
            self_reasoning("Aldo is older. So 1801.", '[2] "Aldo": x\n[1] "in": y\n[2] "is": z'),
            [("Aldo is older.", (2, 1)), ("So 1801.", (2, 1))],
        ),
        ("self_reasoning", self_reasoning("See [1]. [2]"), [("See .", (1,))]),
        (
            "reasoning",
            "[1] It dates Aldo. It agrees with [2].\n[3] Dates too.\nAnswer: 1801",
            [("It dates Aldo.", (1,)), ("It agrees with .", (1, 2)), ("Dates too.", (3,))],
        ),
        ("reasoning", "Answer: 1801", []),
    ],
)
def test_sentences_and_their_citations_are_read_from_each_style(style, output, expected):
    assert claims(case(output, style, SHOWN)) == [Claim(*one) for one in expected]


class Stub:
    """Entailment by a list of facts (premise, hypothesis); remembers what it was asked."""

    def __init__(self, *facts):
        self.facts, self.asked = set(facts), []

    def __call__(self, pairs):
        self.asked.append(list(pairs))
        return [pair in self.facts for pair in pairs]


PREMISE_A = "Title: Aldo\nAldo was founded in 1801."
PREMISE_B = "Title: Bexa\nBexa was founded in 1802."


def test_alce_of_cases_asks_the_model_for_passages_with_titles_and_for_nothing_twice():
    output = self_reasoning("It is old [1][2].")
    model = Stub((f"{PREMISE_A}\n{PREMISE_B}", "It is old ."), (PREMISE_A, "It is old ."))
    found = with_alce([case(output, "self_reasoning", SHOWN)] * 2, model)
    assert model.asked == [
        [(f"{PREMISE_A}\n{PREMISE_B}", "It is old .")],
        [(PREMISE_A, "It is old ."), (PREMISE_B, "It is old .")],
    ]
    for one in found:
        assert (METRICS["alce_recall"](one), METRICS["alce_precision"](one)) == (1, 0.5)


def test_a_passage_without_a_title_is_its_text():
    model = Stub(("Corin was born in 1801.", "So."))
    [found] = with_alce([case("[3] So.\nAnswer: 1801", "reasoning", SHOWN)], model)
    assert found.measured == {"alce_recall": 1, "alce_precision": 1}


@pytest.mark.parametrize(
    ("output", "style", "shown", "failure", "expected"),
    [
        ("1801", "answer", SHOWN, None, None),
        ("[1] x.\nAnswer: The passages do not say.", "reasoning", SHOWN, None, None),
        ("1801", "reasoning", (), None, None),
        ("", "reasoning", SHOWN, None, 0),
        ("", "reasoning", SHOWN, "out of memory", 0),
        (self_reasoning("[0] says so."), "self_reasoning", SHOWN, None, 0),
        (self_reasoning("So [4]."), "self_reasoning", SHOWN, None, 0),
    ],
)
def test_alce_applies_to_answers_in_reasoned_styles_from_passages(output, style, shown, failure, expected):
    [found] = with_alce([case(output, style, shown, failure=failure)], lambda pairs: [True] * len(pairs))
    assert METRICS["alce_recall"](found) == expected
    assert METRICS["alce_precision"](found) == expected


# models for inference: random weights, judged one pair at a time without our batching

WORDS = ["premise", "hypothesis", ":", "Aldo", "Bexa", "was", "founded", "in", "1801", "1802", ".", "Title", "old"]
WORDS += ["it", "is", "[PAD]", "[UNK]"]
PAIRS = [("Aldo was founded in 1801 .", "Aldo is old ."), ("Bexa", "it is"), ("Title : Bexa", "Bexa was founded"), *[
    (f"Aldo {'was ' * count}founded", "it is old .") for count in range(1, 9)
]]  # fmt: skip


def word_tokenizer(folder, words, **options):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", **options)
    made.save_pretrained(folder)
    return made


def classifier(folder, labels, seed=2, words=WORDS, **options):
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=options.pop("positions", 64),
        initializer_range=1.0,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        pad_token_id=words.index("[PAD]"),
    )
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    return model, word_tokenizer(folder, words, **options)


@pytest.mark.parametrize("labels", [["contradiction", "neutral", "entailment"], ["ENTAILMENT", "not_entailment"]])
def test_a_classifier_entails_where_its_entailment_class_is_likeliest(tmp_path, labels):
    import torch

    model, tokenizer = classifier(tmp_path, labels)
    wanted = [label.lower() for label in labels].index("entailment")
    judge = load_entailment(str(tmp_path), SETTING, "cpu")
    judge.batch_size = 4
    with torch.inference_mode():
        alone = [int(model(**tokenizer(*pair, return_tensors="pt")).logits.argmax()) == wanted for pair in PAIRS]
    assert len(set(alone)) == 2
    assert judge(PAIRS) == alone
    assert judge.shortened == 0
    assert judge([]) == []


def test_pairs_too_long_for_a_classifier_are_cut_and_counted(tmp_path):
    classifier(tmp_path, ["entailment", "neutral"], positions=8)
    judge = load_entailment(str(tmp_path), SETTING, "cpu")
    assert len(judge(PAIRS)) == len(PAIRS)
    assert judge.shortened == sum(len(f"{premise} {hypothesis}".split()) > 8 for premise, hypothesis in PAIRS)


def test_a_model_without_an_entailment_class_is_refused(tmp_path):
    classifier(tmp_path, ["LABEL_0", "LABEL_1"])
    with pytest.raises(RagFtError, match=r"evaluation.citation_nli=.*LABEL_0, LABEL_1.*which one is entailment"):
        load_entailment(str(tmp_path), SETTING, "cpu")


def test_a_model_that_is_not_there_is_refused_with_the_setting(tmp_path):
    with pytest.raises(RagFtError, match=r"evaluation.citation_nli=.*nowhere"):
        load_entailment(str(tmp_path / "nowhere"), SETTING, "cpu")


def test_a_t5_model_entails_where_it_writes_1_to_premise_and_hypothesis(tmp_path):
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    others = [f"other{index}" for index in range(300)]
    config = T5Config(
        vocab_size=len(WORDS + others),
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        initializer_factor=8.0,
        pad_token_id=WORDS.index("[PAD]"),
        decoder_start_token_id=WORDS.index("[PAD]"),
    )
    model = T5ForConditionalGeneration(config).eval()
    tokenizer = word_tokenizer(tmp_path, WORDS + others)
    written = []
    for premise, hypothesis in PAIRS:
        ids = tokenizer(f"premise: {premise} hypothesis: {hypothesis}", return_tensors="pt")["input_ids"]
        written.append(int(model.generate(ids, max_new_tokens=1, do_sample=False)[0, -1]))
    # What it writes first to the first pair is called 1, and ends the answer.
    says = written[0]
    assert says >= len(WORDS)
    assert 0 < written.count(says) < len(PAIRS)
    model.generation_config.eos_token_id = says
    model.save_pretrained(tmp_path)
    word_tokenizer(tmp_path, ["1" if index == says else word for index, word in enumerate(WORDS + others)])
    judge = load_entailment(str(tmp_path), SETTING, "cpu")
    judge.batch_size = 3
    assert judge(PAIRS) == [token == says for token in written]


# the judge


def test_the_judge_is_shown_question_accepted_answers_and_candidate():
    system, user = judge_messages("Who? ", ["Berin", "B. Aldo"], " Berin Aldo\n")
    assert system["role"] == "system"
    assert user["content"].splitlines()[:3] == [
        "Question: Who?",
        "Right answers: Berin | B. Aldo",
        "Candidate: Berin Aldo",
    ]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("yes", True),
        ("Yes.", True),
        ("**No**", False),
        ("NO, the candidate names another person; yes would be wrong", False),
        ("Verdict: yes", True),
        ('{"verdict": "no"}', False),
        ("<think>Perhaps no?</think>\nyes", True),
        ("<think>no, it is", None),
        ("The answer is either yes or no", None),
        ("I know nothing", None),
        ("", None),
        (None, None),
        ("맞습니다", None),
    ],
)
def test_verdicts_are_read_from_what_models_write(reply, expected):
    assert read_verdict(reply) is expected


class Judge:
    """Says what `replies` has for the candidate; remembers the candidates it was asked about."""

    def __init__(self, **replies):
        self.replies, self.asked = replies, []

    def __call__(self, conversations):
        candidates = [one[-1]["content"].splitlines()[2].removeprefix("Candidate: ") for one in conversations]
        self.asked += candidates
        return [self.replies.get(candidate) for candidate in candidates]


def judged(cases, judge, folder, model="m"):
    found = with_verdicts(cases, {"q": "When?", "other": "Since when?"}, judge, model, folder / "verdicts.jsonl")
    return [METRICS["judged"](one) for one in found]


def test_only_answers_that_strings_do_not_settle_are_judged_and_each_once(tmp_path):
    cases = [
        case("1801"),  # an exact match
        case("MDCCCI"),
        case("MDCCCI"),
        case("1802"),
        case("dunno"),  # the judge fails on it
        case("The passages do not say."),
        case("", failure="out of memory"),
        case(""),
        case("The passages do not say.", answers=()),
        case("1801", answers=()),
        case("MDCCCI", question="other"),
    ]
    judge = Judge(MDCCCI="yes", **{"1802": "No."})
    assert judged(cases, judge, tmp_path) == [1, 1, 1, 0, None, 0, 0, 0, 1, 0, 1]
    assert judge.asked == ["MDCCCI", "1802", "dunno", "MDCCCI"]


def test_answers_without_a_verdict_are_counted():
    one = replace(case(), measured={"judged": None})
    [line] = about_unjudged([one, replace(one, measured={"judged": 0.0}), one])
    assert "no verdict on 2 answers" in line
    assert about_unjudged([replace(one, measured={"judged": 1.0})]) == []


def test_verdicts_are_kept_failures_asked_again_and_another_judge_starts_over(tmp_path):
    cases = [case("MDCCCI"), case("dunno")]
    assert judged(cases, Judge(MDCCCI="yes"), tmp_path) == [1, None]
    again = Judge(MDCCCI="no", dunno="no")
    assert judged(cases, again, tmp_path) == [1, 0]
    assert again.asked == ["dunno"]
    other = Judge(MDCCCI="no", dunno="no")
    assert judged(cases, other, tmp_path, model="another") == [0, 0]


def test_verdicts_survive_a_run_that_was_killed_while_it_wrote(tmp_path):
    judged([case("MDCCCI")], Judge(MDCCCI="yes"), tmp_path)
    file = tmp_path / "verdicts.jsonl"
    file.write_bytes(file.read_bytes() + b'{"key": "ab')
    assert judged([case("MDCCCI"), case("1802")], Judge(**{"1802": "no"}), tmp_path) == [1, 0]
    nobody = Judge()
    assert judged([case("MDCCCI"), case("1802")], nobody, tmp_path) == [1, 0]
    assert nobody.asked == []


def test_what_is_known_is_written_before_the_judge_breaks_down(tmp_path):
    def breaking(conversations):
        if not (tmp_path / "verdicts.jsonl").exists():
            return ["yes"] * len(conversations)
        raise KeyboardInterrupt

    cases = [case(f"answer {number}") for number in range(70)]
    with pytest.raises(KeyboardInterrupt):
        judged(cases, breaking, tmp_path)
    lines = Path(tmp_path / "verdicts.jsonl").read_text().splitlines()
    assert [json.loads(line)["right"] for line in lines] == [True] * 64


def test_a_question_that_is_not_in_the_data_is_refused(tmp_path):
    with pytest.raises(RagFtError, match=r"question 'gone' .*`rag-ft build"):
        judged([case("MDCCCI", question="gone")], Judge(), tmp_path)
