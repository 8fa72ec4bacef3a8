"""Does a checkpoint that cannot be measured say why, and load in every layout that transformers has saved?"""

from __future__ import annotations

import json
import shutil

import pytest

from repro.models import load_model
from repro.models.loading import CheckpointError
from tests.families import zoo

pytestmark = pytest.mark.conformance


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    directory = tmp_path_factory.mktemp("zoo") / "llava"
    zoo.build("llava", directory)
    return directory


@pytest.fixture
def directory(built, tmp_path):
    """A checkpoint to be spoilt."""
    return shutil.copytree(built, tmp_path / "llava")


def change(file, **settings):
    content = json.loads(file.read_text())
    file.write_text(
        json.dumps({key: value for key, value in (content | settings).items() if value is not ...})
    )


def question(lvlm):
    return lvlm.prompt(zoo.picture(40, 28), "what is it")


def test_code_beside_a_tokenizer_is_not_run(directory, tmp_path):
    ran = tmp_path / "ran"
    (directory / "harm.py").write_text(f"open({str(ran)!r}, 'w')\nclass Harm: pass\n")
    change(directory / "tokenizer_config.json", auto_map={"AutoTokenizer": ["harm.Harm", None]})
    load_model("harmless", directory)
    assert not ran.exists()


@pytest.mark.parametrize("absent", ["preprocessor_config.json", "processor_config.json"])
def test_both_layouts_of_a_processor_give_the_same_prompt(built, directory, absent):
    """transformers 5 saves processor_config.json alone, with the image processor in it; 4 both, or the other."""
    whole = question(load_model(str(built)))
    prepared = json.loads((directory / "preprocessor_config.json").read_text())
    change(directory / "processor_config.json", image_processor=prepared)
    (directory / absent).unlink()
    if absent == "processor_config.json":
        change(directory / "tokenizer_config.json", processor_class="LlavaProcessor")
        # As files of transformers 4 do, the configuration has what the processor's would.
        with pytest.raises(
            CheckpointError, match="no prompt can be made and run .* with its processor, LlavaProcessor"
        ):
            load_model("again", directory)
        return
    found = question(load_model("again", directory))
    assert found.input_ids.equal(whole.input_ids)
    assert found.image_inputs["pixel_values"].equal(whole.image_inputs["pixel_values"])


def test_a_text_model_is_refused(directory):
    change(directory / "config.json", model_type="llama")
    with pytest.raises(CheckpointError, match="model_type 'llama', which is no vision-language model"):
        load_model(str(directory))


def test_an_adapter_is_named_with_the_command_that_merges_it(directory):
    (directory / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"holds an adapter[\s\S]* merge it into its base model"):
        load_model(str(directory))


@pytest.mark.parametrize(
    ("method", "package"), [("awq", "gptqmodel"), ("gptq", "optimum"), ("bitsandbytes", "bits")]
)
def test_a_quantised_checkpoint_names_what_it_needs(directory, method, package):
    change(directory / "config.json", quantization_config={"quant_method": method})
    with pytest.raises(CheckpointError, match=f"quantised by {method}: install .*{package}"):
        load_model(str(directory))


def test_a_checkpoint_without_an_image_token_says_so(directory):
    change(directory / "config.json", image_token_index=299, image_token_id=...)
    with pytest.raises(ValueError, match="none of its image tokens|cannot|match"):
        load_model(str(directory))


def test_a_checkpoint_without_a_chat_template_reads_the_bare_question(directory):
    (directory / "chat_template.jinja").unlink()
    change(directory / "tokenizer_config.json", chat_template=...)
    lvlm = load_model(str(directory))
    assert lvlm.card.template == ""
    assert question(lvlm).text.endswith("what is it")


def test_a_directory_that_is_none_lists_the_models():
    with pytest.raises(
        KeyError, match="no model 'nothing', nor a directory of this name; the models are .*llava-1.5"
    ):
        load_model("nothing")


def test_the_name_of_a_card_is_not_taken_by_a_directory(built, tmp_path):
    path = shutil.copytree(built, tmp_path / "shikra")
    with pytest.raises(KeyError, match="would be called shikra, which is another model: give it a name"):
        from repro.models.card import register

        register(path)
