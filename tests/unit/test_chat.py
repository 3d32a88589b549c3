"""Chat templates: which are compiled, to what, and what happens to the others."""

import dataclasses
import json
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import fuzz_tokenizer as fuzz
import pytest
from checkpoints import tiny_tokenizer
from tokenizers import Tokenizer as Oracle
from transformers import PreTrainedTokenizerFast

from bitnetc.chat import compile_chat, read_chat
from bitnetc.emit import c_string
from bitnetc.errors import BitnetcError
from bitnetc.model import ChatParts, ChatTemplate, Strip
from bitnetc.tokenizer import AddedToken, Tokenizer, parse_tokenizer

BITNET_2B_4T = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = "
    "message['role'] | capitalize + ': '+ message['content'] | trim + '<|eot_id|>' %}"
    "{{ content }}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
LLAMA_3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = "
    "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim "
    "+ '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
FALCON_3 = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ '<|system|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'user' %}"
    "{{ '<|user|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'assistant' %}"
    "{% if not loop.last %}{{ '<|assistant|>\n' + message['content'] + eos_token + '\n' }}"
    "{% else %}{{ '<|assistant|>\n' + message['content'] + eos_token }}{% endif %}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"
)
CHATML = (
    "{{bos_token}}{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN_2_5 = (  # with a system message of its own
    "{%- if messages[0]['role'] == 'system' %}\n"
    "    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}\n"
    "{%- else %}\n"
    "    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}\n"
    "{%- endif %}\n"
    "{%- for message in messages %}\n"
    '    {%- if (message.role == "user") or (message.role == "system" and not loop.first) '
    'or (message.role == "assistant" and not message.tool_calls) %}\n'
    "        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' "
    "+ '\\n' }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|im_start|>assistant\\n' }}\n"
    "{%- endif %}\n"
)
THINKING = (  # as Qwen3 treats earlier thoughts
    "{% for message in messages %}{% set content = message.content %}"
    "{% if message.role == 'assistant' and '</think>' in content %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{{ '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception("
    "'Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}"
    "{% endfor %}"
)
LLAMA_2 = (  # the system message inside the first message
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}"
    "{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}"
    "{% endif %}{% endfor %}"
)
MISTRAL_LAST = (  # the system message before the last message: what was said earlier changes
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{% if loop.last and messages[0]['role'] == 'system' %}"
    "{{ '[INST] ' + messages[0]['content'] + '\n\n' + message['content'] + '[/INST]' }}"
    "{% else %}{{ '[INST] ' + message['content'] + '[/INST]' }}{% endif %}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
    "{% endif %}{% endfor %}"
)
GGUF_2B_4T = (
    "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ 'Human: ' + message['content'] + '\n\nBITNETAssistant: '"
    " + eos_token }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% endif %}{% endfor %}"
)
REAL = {
    "bitnet-2b-4t": BITNET_2B_4T,
    "llama-3": LLAMA_3,
    "falcon-3": FALCON_3,
    "chatml": CHATML,
    "qwen-2.5": QWEN_2_5,
    "thinking": THINKING,
    "mistral": MISTRAL,
    "llama-2": LLAMA_2,
    "mistral-last": MISTRAL_LAST,
    "gguf-2b-4t": GGUF_2B_4T,
}
VARIABLES = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
BOS, EOS, START, END, EOT = 315, 316, 317, 318, 319  # of tiny_tokenizer(320)


@cache
def tiny() -> Tokenizer:
    return parse_tokenizer(json.dumps(tiny_tokenizer(320)).encode(), "tokenizer.json")


def compiled(template: str) -> tuple[ChatTemplate | None, tuple[str, ...]]:
    return compile_chat("here", template, VARIABLES, tiny())


def followed(template: str) -> ChatTemplate:
    chat, notes = compiled(template)
    assert chat, notes
    return chat


# ---- what templates become ----


def test_bitnet_2b_4t() -> None:
    chat, notes = compiled(BITNET_2B_4T)
    assert notes == ()
    assert chat == ChatTemplate(
        head=(BOS, b"User: "),  # the template has no BOS; every text begins with one
        takes_system=True,
        system_head=(BOS, b"System: "),
        system_user=(EOT, b"User: "),
        user_assistant=(EOT, b"Assistant: "),
        assistant_user=(EOT, b"User: "),
        generation=(EOT, b"Assistant: "),
        strip_system=Strip.BOTH,
        strip_user=Strip.BOTH,
        strip_assistant=Strip.BOTH,
    )


def test_llama_3_has_one_bos() -> None:
    chat = followed(LLAMA_3)
    assert chat.head == (BOS, START, b"user", END, b"\n\n")
    assert chat.system_head == (BOS, START, b"system", END, b"\n\n")
    assert chat.generation == (EOT, START, b"assistant", END, b"\n\n")
    assert chat.strip_assistant == Strip.BOTH


def test_falcon_3_last_answer() -> None:
    """Nothing follows the last answer but a message, so the template's case for it is not met."""
    chat = followed(FALCON_3)
    assert chat.assistant_user == (EOS, b"\n<|user|>\n")
    assert chat.generation == (b"\n<|assistant|>\n",)
    assert chat.strip_user == Strip.NONE


def test_chatml() -> None:
    chat = followed(CHATML)
    assert chat.head == (BOS, b"<|im_start|>user\n")
    assert chat.assistant_user == (b"<|im_end|>\n<|im_start|>user\n",)
    own = followed(QWEN_2_5)
    assert b"You are a helpful assistant." in own.head[1]  # type: ignore[operator]
    assert own.system_head == (BOS, b"<|im_start|>system\n")


def test_no_place_for_a_system_message() -> None:
    chat = followed(MISTRAL)
    assert not chat.takes_system
    assert chat.head == (BOS, b"[INST] ")
    assert (chat.user_assistant, chat.assistant_user) == ((b" [/INST]",), (EOS, b"[INST] "))


@pytest.mark.parametrize("template", [LLAMA_2, MISTRAL_LAST])
def test_system_message_in_a_place_of_its_own(template: str) -> None:
    """Inside the first message, stripped with it; before the last one, wherever that is."""
    chat, notes = compiled(template)
    assert chat and not chat.takes_system
    assert "takes no --system" in notes[0]


def test_system_message_inside_the_first() -> None:
    chat = followed(LLAMA_2.replace("content.strip()", "content"))
    assert chat.system_head == (BOS, b"[INST] <<SYS>>\n")
    assert chat.system_user == (b"\n<</SYS>>\n\n",)
    assert chat.assistant_user == (b" ", EOS, BOS, b"[INST] ")


def test_thoughts_are_kept() -> None:
    chat, notes = compiled(THINKING)
    assert chat and "drops the thoughts" in notes[0]


def test_known_wrong_template() -> None:
    chat, notes = compiled(GGUF_2B_4T)
    assert chat == followed(BITNET_2B_4T)
    assert len(notes) == 1 and "never trained with" in notes[0]


def test_date_is_fixed() -> None:
    template = "{{ strftime_now('%d %b %Y') }}" + CHATML
    chat, notes = compiled(template)
    assert chat and chat.head[1] == b"26 Jul 2024"  # type: ignore[comparison-overlap]
    assert "asks for today's date" in notes[0]


def test_jinja_of_transformers() -> None:
    """tojson, dict methods, {% generation %}, break, and block lines without a trace."""
    template = (
        "{% for m in messages %}\n"
        "    {% if m.role == 'assistant' %}\n"
        "{{ m.role | tojson }}{% generation %}{{ m.get('content') }}{% endgeneration %};\n"
        "    {% else %}\n"
        "{{ m['role'] }}: {{ m.content }}.\n"
        "    {% endif %}\n"
        "    {% if loop.index > 10000 %}{% break %}{% endif %}\n"
        "{% endfor %}"
    )
    chat = followed(template)
    assert chat.user_assistant == (b'.\n"assistant"',)
    assert chat.assistant_user == (b";\nuser: ",)


# ---- what is kept out ----


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ messages | length }}", "each message once"),
        ("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", "each message once"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "each message once"),
        ("{% for m in messages | reverse %}{{ m.content }}{% endfor %}", "each message once"),
        ("{% for m in messages %}{{ m.content | replace(' ', '_') }}|{% endfor %}", "whitespace"),
        ("{% for m in messages %}{{ m.content[:40] }}|{% endfor %}", "every conversation alike"),
        ("{% for m in messages[-3:] %}{{ m.content }}|{% endfor %}", "every conversation alike"),
        ("{% for m in messages %}{{ loop.index }}{{ m.content }}{% endfor %}", "alike"),
        ("{% for m in messages %}{{ m.content | e }}|{% endfor %}", "every conversation alike"),
        ("{{ raise_exception('only tools') }}", "cannot be rendered: only tools"),
        ("{% for m in messages %}", "cannot be rendered: Unexpected end of template"),
        ("{{ messages[0].__class__.__mro__ }}", "cannot be rendered"),
        ("{{ 1 // 0 }}", "cannot be rendered"),
        ("{{ undefined_function() }}", "cannot be rendered"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "cannot be rendered"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "cannot be rendered"),
        ("x" * 200_000, "has 200000 characters"),
        ("{% for m in messages %}{{ m.content }}" + "x" * 20_000 + "{% endfor %}", "bytes around"),
        ("{% for i in range(90000) %}xxxxxxxx{% endfor %}", "prints more than"),
        ("{{ 'x' * 10000000000 }}", "MiB to be rendered"),
        ("{{ '%0999999999d' % 1 }}", "MiB to be rendered"),
    ],
)
def test_kept_out(template: str, said: str) -> None:
    chat, notes = compiled(template)
    assert chat is None
    assert said in notes[-1] and notes[-1].endswith("the program is built without --chat")
    assert "\n" not in notes[-1]


def test_tokenizer_that_marks_the_beginning() -> None:
    marks = dataclasses.replace(tiny(), space_prefix="first")
    chat, notes = compile_chat("here", MISTRAL, VARIABLES, marks)
    assert chat is None and "treats every stretch of text alike" in notes[0]


def test_tokenizer_that_comes_to_a_control_token() -> None:
    """A message could hold one though none is recognised in it."""
    control = AddedToken(ord("A"), b"A", True, False)
    reached = dataclasses.replace(tiny(), added=(control, *tiny().added))
    chat, notes = compile_chat("here", MISTRAL, VARIABLES, reached)
    assert chat is None and "whose merges do not lead to 'A'" in notes[0]


def test_endless_template() -> None:
    started = time.monotonic()
    loop = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}"
    chat, notes = compiled(loop)
    assert chat is None and "needs more than" in notes[0]
    assert time.monotonic() - started < 60


# ---- where templates are found ----


def write(folder: Path, **config: Any) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({**VARIABLES, **config}))


def test_places(tmp_path: Path) -> None:
    assert read_chat(tmp_path, {}, tiny()) == (None, ())
    write(tmp_path)
    assert read_chat(tmp_path, {}, tiny()) == (None, ())
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": MISTRAL}))
    assert read_chat(tmp_path, {}, tiny())[0] == followed(MISTRAL)
    write(tmp_path, chat_template=CHATML)
    assert read_chat(tmp_path, {}, tiny())[0] == followed(CHATML)
    both = [{"name": "rag", "template": "?"}, {"name": "default", "template": LLAMA_3}]
    write(tmp_path, chat_template=both)
    assert read_chat(tmp_path, {}, tiny())[0] == followed(LLAMA_3)
    (tmp_path / "chat_template.jinja").write_text(FALCON_3)
    assert read_chat(tmp_path, {}, tiny())[0] == followed(FALCON_3)


def test_tokens_as_objects(tmp_path: Path) -> None:
    write(tmp_path, chat_template=CHATML, bos_token={"content": VARIABLES["bos_token"]})
    assert read_chat(tmp_path, {}, tiny())[0] == followed(CHATML)


def test_template_of_a_file(tmp_path: Path) -> None:
    """As GGUF keeps it: the template beside the ids of its variables."""
    file = tmp_path / "model.gguf"
    assert read_chat(file, {}, tiny()) == (None, ())
    config = {"chat_template": LLAMA_3, "bos_token_id": BOS, "eos_token_id": [EOS]}
    assert read_chat(file, config, tiny())[0] == followed(LLAMA_3)


@pytest.mark.parametrize("value", [7, [], [{"name": ["default"]}], [{"name": "default"}], {}])
def test_wrong_types(tmp_path: Path, value: object) -> None:
    write(tmp_path, chat_template=value)
    with pytest.raises(BitnetcError, match="chat_template"):
        read_chat(tmp_path, {}, tiny())


# ---- ids, beside transformers ----

SAID = (
    "How are you?",
    "Fine. And you?",
    "  12345 \n\n",
    "\u00e9t\u00e9 \U0001f600\n",
    "{{ 7 * 7 }}\tUser: no",
    "I'LL see\u00a0",
    " ",
)


def ids_of(chat: ChatTemplate, said: list[str], system: str, encode: Callable[..., Any]) -> list:
    """What the compiled program does: text between tokens is encoded as one."""
    parts: ChatParts = chat.head
    if system:
        text = chat.strip_system.apply(system).encode()
        parts = (*chat.system_head, text, *chat.system_user)
    for i, content in enumerate(said):
        strip = chat.strip_assistant if i % 2 else chat.strip_user
        after = chat.assistant_user if i % 2 else chat.user_assistant
        if i == len(said) - 1:
            after = chat.generation
        parts = (*parts, strip.apply(content).encode(), *after)
    ids: list[int] = []
    run = b""
    for part in (*parts, None):
        if isinstance(part, bytes):
            run += part
            continue
        ids += encode(run.decode(), add_special_tokens=False).ids
        ids += [] if part is None else [part]
        run = b""
    return ids


@cache
def vocabularies(name: str) -> tuple[Oracle, Tokenizer, PreTrainedTokenizerFast]:
    """That of `tokenizers`, ours, and the one that applies templates."""
    document = fuzz.llama3_document() if name == "llama-3" else json.dumps(tiny_tokenizer(320))
    oracle = Oracle.from_str(document)
    judge = PreTrainedTokenizerFast(tokenizer_object=oracle, **VARIABLES)
    return oracle, parse_tokenizer(document.encode(), "tokenizer.json"), judge


@pytest.mark.parametrize("name", [n for n in REAL if n != "gguf-2b-4t"])
@pytest.mark.parametrize("system", ["", " Be kind. \n"])
@pytest.mark.parametrize("vocabulary", ["tiny", "llama-3"])
def test_ids(name: str, system: str, vocabulary: str) -> None:
    oracle, tokenizer, judge = vocabularies(vocabulary)
    chat, _ = compile_chat("here", REAL[name], VARIABLES, tokenizer)
    assert chat
    if system and not chat.takes_system:
        return
    for count in (1, 3, 5, 7):
        said = [*SAID[:count]]
        messages = [{"role": "system", "content": system}] if system else []
        messages += [
            {"role": "assistant" if i % 2 else "user", "content": s} for i, s in enumerate(said)
        ]
        wanted = judge.apply_chat_template(
            messages, chat_template=REAL[name], add_generation_prompt=True, return_dict=False
        )
        bos = list(tokenizer.prefix)
        if wanted[: len(bos)] != bos:
            wanted = bos + wanted
        assert ids_of(chat, said, system, oracle.encode) == wanted


def test_published_ids() -> None:
    """The ids of transformers' own test of this model, after the begin-of-text token."""
    document = fuzz.llama3_document()
    tokenizer = parse_tokenizer(document.encode(), "tokenizer.json")
    chat, _ = compile_chat("here", BITNET_2B_4T, VARIABLES, tokenizer)
    assert chat
    ids = ids_of(chat, ["How are you?"], "", Oracle.from_str(document).encode)
    assert ids == [128000, 1502, 25, 2650, 527, 499, 30, 128009, 72803, 25, 220]


# ---- text as C ----


def test_c_string() -> None:
    assert c_string(b'a"b\\c\n??/\x07\xc3\xa9' + b"1") == r'"a\"b\\c\n\?\?/\007\303\2511"'
