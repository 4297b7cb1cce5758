"""Specs: files, words and flags in, one checked record or one clear message out."""

import pytest
import yaml

from rayseg import specs
from rayseg.errors import UsageError
from rayseg.label.spec import LabelSpec

NEEDED = {"images": "in", "model": "m", "out": "o"}


def test_flags_win_over_words_and_words_over_the_file(tmp_path):
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump({**NEEDED, "limit": 1, "score_threshold": 0.1, "workers": 3}))
    spec = specs.build(LabelSpec, str(file), ["limit=2", "score_threshold=0.2"], {"limit": 5, "images": None})
    assert (spec.images, spec.limit, spec.score_threshold, spec.workers) == ("in", 5, 0.2, 3)


def test_a_misspelt_key_names_the_nearest():
    with pytest.raises(UsageError, match=r"score_treshold: no such key; did you mean score_threshold\?"):
        specs.build(LabelSpec, None, ["score_treshold=0.3"], NEEDED)


def test_every_fault_is_named_with_the_value_and_what_is_allowed():
    with pytest.raises(UsageError) as caught:
        specs.build(LabelSpec, None, ["score_threshold=1.5", "limit=no"], {"images": "in", "model": "m"})
    message = str(caught.value)
    assert "score_threshold: input should be less than or equal to 1, found 1.5" in message
    assert "limit: input should be a valid integer" in message
    assert "out: is required" in message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1,", "\x00"])
def test_a_file_that_is_no_spec_is_named(tmp_path, text):
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match="broken.yaml"):
        specs.build(LabelSpec, str(file), [], NEEDED)


@pytest.mark.parametrize("word", ["limit", "=3"])
def test_a_word_without_key_or_value_is_named(word):
    with pytest.raises(UsageError, match="expected key=value"):
        specs.build(LabelSpec, None, [word], NEEDED)


def test_the_shipped_label_job_is_a_valid_spec_with_every_field(request):
    file = request.config.rootpath / "jobs" / "label.yaml"
    spec = specs.build(LabelSpec, str(file), [], {})
    assert set(yaml.safe_load(file.read_text())) == set(LabelSpec.model_fields)
    defaults = LabelSpec(images=spec.images, model=spec.model, out=spec.out)
    assert spec == defaults
