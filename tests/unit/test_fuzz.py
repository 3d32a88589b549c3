"""A slice of tests/fuzz_readers.py, and what longer runs of it found."""

import json
from pathlib import Path

import pytest
from checkpoints import tiny_checkpoint
from fuzz_readers import READERS, characters_document, check_message, fuzz
from onnx_files import build

from bitnetc.checkpoint import read
from bitnetc.checkpoint.fields import shown
from bitnetc.errors import BitnetcError
from bitnetc.normalise import normalise
from bitnetc.tokenizer import parse_tokenizer


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_give_one_kind_of_error(tmp_path: Path, name: str) -> None:
    if name == "pt":
        pytest.importorskip("torch")
    taken, kept = fuzz(name, 150, 5, tmp_path)
    assert kept == 0
    assert taken < 140  # the damage is seen


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    """The protobuf package gives bytes for them."""
    tiny = tiny_checkpoint()
    (tmp_path / "config.json").write_text(json.dumps(tiny.config))
    content = build(tiny, "MatMulNBits-2").SerializeToString()
    for word in (b"MatMulNBits", b"com.microsoft", b"input_ids", b"/lm_head/MatMul", b"Softmax"):
        (tmp_path / "m.onnx").write_bytes(content.replace(word, word[:-1] + b"\xff"))
        with pytest.raises(BitnetcError) as error:
            normalise(read(tmp_path / "m.onnx"), "x")
        check_message(error.value)


def test_keys_are_shown_without_control_characters(tmp_path: Path) -> None:
    tiny = tiny_checkpoint()
    tiny.write(tmp_path)
    for key in ("modules_to_not_c\x7fnvert", "modules_to_not_\x1b[31m"):
        quant = {**tiny.config["quantization_config"], key: None}
        (tmp_path / "config.json").write_text(
            json.dumps({**tiny.config, "quantization_config": quant})
        )
        try:
            normalise(read(tmp_path), "x")
        except BitnetcError as error:
            check_message(error)
    assert shown("a\x7f\x1bb") == '"a\\u007f\\u001bb"'


def test_messages_hold_no_control_characters() -> None:
    """A tokenizer.json named a normalizer so; a terminal would act upon it."""
    content = json.dumps(characters_document()).replace("Prepend", "Prepen\\u001b[31m")
    with pytest.raises(BitnetcError) as error:
        parse_tokenizer(content.encode(), "tokenizer.json")
    check_message(error.value)
    assert str(BitnetcError("\x1b", "\ud800 \x7f", "ä")) == "\\x1b: \\ud800 \\x7f; ä"
