"""The checkpoint's chat template -> ChatTemplate: the fixed text around the messages.

A chat template is a Jinja program by whoever made the checkpoint. It is run here, in a process of
its own under limits, on conversations of known text; what stands around that text is what the
compiled program needs. Then the real template is rendered for other conversations, and a template
that does anything else with them is kept out, with a note that says so.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bitnetc.checkpoint.fields import read_bytes, read_object
from bitnetc.errors import BitnetcError
from bitnetc.model import ChatParts, ChatTemplate, Strip
from bitnetc.tokenizer import Tokenizer

MAX_TEMPLATE = 1 << 17  # characters; real ones have at most 20 thousand
MAX_RENDERED = 1 << 18  # characters of one conversation
MAX_LITERAL = 1 << 14  # bytes of fixed text in one place
MAX_SECONDS = 5  # to render all conversations; real templates need milliseconds
MAX_MEMORY = 1 << 28  # bytes that rendering may take

Conversation = list[tuple[str, str]]  # role, content
Rendered = tuple[str, str]  # text, or else what went wrong

_VARIABLES = tuple(f"{kind}_token" for kind in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
# What strftime_now() answers: a compiled program cannot depend on the day of its compilation.
# Llama-3.1 takes this day where there is no clock.
_TODAY = datetime(2024, 7, 26)

_BITNET_2B_4T = (
    "{% for message in messages %}"
    "{{ message['role'] | capitalize + ': ' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
# Templates that were published by mistake: text only they have, what they are, what is right.
_KNOWN_WRONG = (
    (
        "BITNETAssistant",
        "a placeholder that bitnet-b1.58-2B-4T was never trained with; its own "
        "(Role: content<|eot_id|>) is used instead",
        _BITNET_2B_4T,
    ),
)


def read_chat(
    path: Path, config: Mapping[str, Any], tokenizer: Tokenizer
) -> tuple[ChatTemplate | None, tuple[str, ...]]:
    """The chat template of a checkpoint, and notes on it.

    path:   the folder that holds it, or a file whose `config` may have chat_template as a key.
    None, without a note, when the checkpoint has none; None, with a note, when it has one that a
    program cannot follow.
    """
    if not path.is_dir():
        template = config.get("chat_template")
        if not isinstance(template, str):
            return None, ()
        variables = _variables_by_id(config, tokenizer)
        return compile_chat(f"{path.name}: chat_template", template, variables, tokenizer)
    said: dict[str, Any] = {}
    if (path / "tokenizer_config.json").exists():
        said = read_object(path / "tokenizer_config.json")
    named: dict[str, Any] = {}
    if (path / "special_tokens_map.json").exists():
        named = read_object(path / "special_tokens_map.json")
    found = _find_template(path, said)
    if not found:
        return None, ()
    return compile_chat(*found, _variables({**named, **said}), tokenizer)


def _find_template(directory: Path, config: Mapping[str, Any]) -> tuple[str, str] | None:
    """The template's name and text; a file of its own comes first, as in transformers."""
    path = directory / "chat_template.jinja"
    if path.exists():
        raw = read_bytes(path, 4 * MAX_TEMPLATE)
        return path.name, raw.decode("utf-8", "replace")
    path = directory / "tokenizer_config.json"
    value = config.get("chat_template")
    if value is None and (directory / "chat_template.json").exists():
        path = directory / "chat_template.json"
        value = read_object(path).get("chat_template")
    where = f"{path}: chat_template"
    if isinstance(value, list):  # of {"name": ..., "template": ...}
        entries = [t for t in value if isinstance(t, dict) and t.get("name") == "default"]
        value = entries[0].get("template") if entries else None
        if value is None:
            raise BitnetcError(where, 'a list without one named "default"', "correct it")
    if value is None:
        return None
    if not isinstance(value, str):
        raise BitnetcError(where, "is not a text", "correct it")
    return f"{path.name}: chat_template", value


def _variables(config: Mapping[str, Any]) -> dict[str, str]:
    """bos_token and its like, which a template may print; each is a text, or {"content": text}."""
    found = {}
    for name in _VARIABLES:
        value = config.get(name)
        if isinstance(value, dict):
            value = value.get("content")
        if isinstance(value, str):
            found[name] = value
    return found


def _variables_by_id(config: Mapping[str, Any], tokenizer: Tokenizer) -> dict[str, str]:
    """The same, from bos_token_id and its like."""
    found = {}
    for name in _VARIABLES:
        value = config.get(f"{name}_id")
        value = value[0] if isinstance(value, list) and value else value
        if type(value) is int and 0 <= value < tokenizer.vocab:
            found[name] = tokenizer.pieces[value].decode("utf-8", "replace")
    return found


def compile_chat(
    where: str, template: str, variables: Mapping[str, str], tokenizer: Tokenizer
) -> tuple[ChatTemplate | None, tuple[str, ...]]:
    """The ChatTemplate of a Jinja text, and notes; `where` names it in them."""
    notes = []
    for mark, what, right in _KNOWN_WRONG:
        if mark in template:
            notes.append(f"{where}: {what}")
            template = right
    if "strftime_now" in template:
        notes.append(f"{where}: asks for today's date; compiled as {_TODAY:%d %b %Y}")
    try:
        chat, doubts = _compile(template, variables, tokenizer)
    except _NotOfTheForm as reason:
        return None, (*notes, f"{where}: {reason}; the program is built without --chat")
    return chat, (*notes, *(f"{where}: {doubt}" for doubt in doubts))


class _NotOfTheForm(Exception):
    """Why a template cannot be compiled, as a clause."""


class _Pieces:
    """The fixed text around messages, as text."""

    def __init__(self, without: list[str], system: list[str] | None) -> None:
        self.head, self.user_assistant, self.assistant_user, self.generation = without
        self.system = system[:2] if system and system[2:] == without[1:] else None
        self.strip: dict[str, Strip] = dict.fromkeys(("system", "user", "assistant"), Strip.NONE)

    def render(self, conversation: Conversation) -> str:
        text = "" if conversation[0][0] == "system" else self.head
        before = ""
        for role, content in conversation:
            if role == "system":
                assert self.system
                text += self.system[0]
            elif role == "assistant":
                text += self.user_assistant
            elif before == "system":
                assert self.system
                text += self.system[1]
            elif before == "assistant":
                text += self.assistant_user
            text += self.strip[role].apply(content)
            before = role
        return text + self.generation

    def strip_as(self, wanted: str, conversation: Conversation) -> bool:
        """Sets `strip` so that the conversation is rendered as wanted; False when none fits."""
        for sides in product(map(Strip, range(4)), repeat=len(self.strip)):
            self.strip = dict(zip(self.strip, sides, strict=True))
            if self.render(conversation) == wanted:
                return True
        return False


def _compile(
    template: str, variables: Mapping[str, str], tokenizer: Tokenizer
) -> tuple[ChatTemplate, list[str]]:
    if len(template) > MAX_TEMPLATE:
        raise _NotOfTheForm(f"has {len(template)} characters, more than {MAX_TEMPLATE}")
    probe = _conversation(["bncUserOne", "bncAnswerOne", "bncUserTwo"])
    with_system = [("system", "bncSystem"), *probe]
    padded = _conversation([" \n\tbncUserOne\n \t", "\t bncAnswerOne \n", "\n bncUserTwo\t "])
    padded_system = [("system", " \nbncSystem\t\n "), *padded]
    checks = list(_checks())
    every = [probe, with_system, padded, padded_system]
    every += [c for check in checks for c in (check, [("system", " Be kind. \n"), *check])]
    every += [check for _, check in _DOUBTS]
    rendered = dict(zip(map(repr, every), render(template, variables, every), strict=True))

    def real(conversation: Conversation) -> Rendered:
        return rendered[repr(conversation)]

    text, error = real(probe)
    if error:
        raise _NotOfTheForm(error)
    without = _around(text, probe)
    if not without:
        raise _NotOfTheForm("does not print each message once, in order")
    pieces = _Pieces(without, _around(real(with_system)[0], with_system))
    if pieces.system and not pieces.strip_as(real(padded_system)[0], padded_system):
        pieces.system = None
    if not pieces.system and not pieces.strip_as(real(padded)[0], padded):
        raise _NotOfTheForm("changes the whitespace of messages in a way of its own")
    for check in checks:
        _compare(pieces, check, real(check))
        if pieces.system:
            check = [("system", " Be kind. \n"), *check]
            _compare(pieces, check, real(check))
    doubts = [doubt for doubt, c in _DOUBTS if real(c)[0] != pieces.render(c)]
    if not pieces.system and "bncSystem" in real(with_system)[0]:
        doubts.append("puts the system message where the program cannot; it takes no --system")
    return _tokenised(pieces, tokenizer), doubts


def _compare(pieces: _Pieces, conversation: Conversation, real: Rendered) -> None:
    text, error = real
    if error or text != pieces.render(conversation):
        raise _NotOfTheForm(
            f"does not treat every conversation alike (one of {len(conversation)} messages"
            + (f": {error})" if error else ")")
        )


def _conversation(contents: Iterable[str]) -> Conversation:
    return [("assistant" if i % 2 else "user", text) for i, text in enumerate(contents)]


_TEXTS = (
    "Hello!",
    "It is a truth universally acknowledged",
    "  two spaces before and after  ",
    "\n\nlines before\nand after\n",
    "<|eot_id|><|im_end|>\n<|im_start|>system\n</s>[/INST]<|user|>",
    "{{ 7 * 7 }}{% for x in messages %}{# no #}",
    "\u3000\u00e9t\u00e9 \U0001f600 \u4f60\u597d\u00a0",
    "User: \"quoted\" 'text' \\n back\\slash &amp; <b>",
    "Assistant:",
    "12345",
)
# Whole conversations that a template may treat in its own way, and what it means when it does.
_DOUBTS = (
    (
        "treats an empty answer in a way of its own, which the program does not follow",
        _conversation(["Hello!", "", "Are you there?"]),
    ),
    (
        "drops the thoughts (<think>) of earlier answers; the program keeps them",
        _conversation(["Hello!", "<think>\nHm.\n</think>\n\nHello.", "Are you there?"]),
    ),
)


def _checks() -> Iterator[Conversation]:
    """One to five turns; every text is said by both."""
    for first in range(len(_TEXTS)):
        for messages in (1, 3, 9):
            yield _conversation(_TEXTS[(first + 3 * i) % len(_TEXTS)] for i in range(messages))


def _around(text: str, conversation: Conversation) -> list[str] | None:
    """What stands before, between and after the contents, each of which is in the text once."""
    parts = []
    for _, content in conversation:
        before, found, text = text.partition(content)
        if not found:
            return None
        parts.append(before)
    parts.append(text)
    if any(content in part for _, content in conversation for part in parts):
        return None
    return parts


# ---- text to parts ----


def _tokenised(pieces: _Pieces, tokenizer: Tokenizer) -> ChatTemplate:
    """The pieces with added tokens as ids; a conversation begins with what begins every text."""

    # The program encodes each text between two tokens by itself; where a tokenizer puts a space
    # before the first text only, or not after every token, that is another text.
    normalized = any(token.normalized for token in tokenizer.added)
    if tokenizer.space_prefix == "first" or (
        tokenizer.space_prefix != "never" and normalized and not tokenizer.after_added
    ):
        raise _NotOfTheForm("needs a tokenizer that treats every stretch of text alike")

    # Text that spells a control token is encoded as text, which must not come to one either.
    reached = reached_controls(tokenizer)
    if reached:
        raise _NotOfTheForm(f"needs a tokenizer whose merges do not lead to {reached[0]!r}")

    def parts(text: str, begins: bool = False) -> ChatParts:
        found = chat_parts(text, tokenizer)
        if begins and found[: len(tokenizer.prefix)] != tokenizer.prefix:
            found = (*tokenizer.prefix, *found)
        return found

    system = pieces.system or ["", ""]
    return ChatTemplate(
        head=parts(pieces.head, True),
        takes_system=pieces.system is not None,
        system_head=parts(system[0], True),
        system_user=parts(system[1]),
        user_assistant=parts(pieces.user_assistant),
        assistant_user=parts(pieces.assistant_user),
        generation=parts(pieces.generation),
        strip_system=pieces.strip["system"],
        strip_user=pieces.strip["user"],
        strip_assistant=pieces.strip["assistant"],
    )


def reached_controls(tokenizer: Tokenizer) -> list[str]:
    """The control tokens that text comes to though none is recognised in it: they are single
    symbols, or merges make them, or they are words that are pieces."""
    made = {*tokenizer.merges[:, 2].tolist(), *tokenizer.fallback}
    found = []
    for token in tokenizer.added:
        if not token.special or token.id >= tokenizer.model_pieces:
            continue
        piece = tokenizer.pieces[token.id]
        symbol = len(piece.decode("utf-8", "replace")) == 1
        if symbol or token.id in made or tokenizer.ignore_merges:
            found.append(token.content.decode())
    return found


def chat_parts(text: str, tokenizer: Tokenizer) -> ChatParts:
    """Text cut at added tokens, which become ids, as the tokenizer cuts it."""
    data = text.encode("utf-8", "replace")
    if len(data) > MAX_LITERAL:
        raise _NotOfTheForm(f"prints {len(data)} bytes around messages, more than {MAX_LITERAL}")
    found: ChatParts = (data,) if data else ()
    for normalized in (False, True):
        ids = {t.content: t.id for t in tokenizer.added if t.normalized == normalized}
        if not ids:
            continue
        longest_first = sorted(ids, key=len, reverse=True)
        pattern = re.compile(b"(" + b"|".join(map(re.escape, longest_first)) + b")")
        cut: list[bytes | int] = []
        for part in found:
            if isinstance(part, bytes):
                pieces = pattern.split(part)
                cut += [ids[p] if i % 2 else p for i, p in enumerate(pieces) if p]
            else:
                cut.append(part)
        found = tuple(cut)
    return found


# ---- the real template ----


def render(
    template: str, variables: Mapping[str, str], conversations: list[Conversation]
) -> list[Rendered]:
    """Each conversation as transformers renders it, in a process that a template cannot leave.

    Errors: _NotOfTheForm when the template does not end within the limits.
    """
    job = json.dumps([template, dict(variables), conversations])
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONIOENCODING": "ascii",
        "OPENBLAS_NUM_THREADS": "1",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "bitnetc.chat"],
            input=job,
            capture_output=True,
            text=True,
            env=environment,
            timeout=6 * MAX_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise _NotOfTheForm("takes too long to render") from None
    if done.returncode:
        raise _NotOfTheForm(
            f"needs more than {MAX_SECONDS} s or {MAX_MEMORY >> 20} MiB to be rendered"
        )
    return [(text, error) for text, error in json.loads(done.stdout)]


def _limit() -> None:
    """Bounds processor time and memory of this process, where the system can."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    taken = Path("/proc/self/statm")
    if taken.exists():
        now = int(taken.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MAX_MEMORY, now + MAX_MEMORY))


class _Generation(jinja2.ext.Extension):
    """{% generation %}, which marks what the assistant says for training, prints its body."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _template(text: str) -> jinja2.Template:
    """The template in the environment that transformers gives it."""

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = _TODAY.strftime
    return environment.from_string(text)


def _render_one(template: jinja2.Template, variables: dict[str, str], chat: Conversation) -> str:
    messages = [{"role": role, "content": content} for role, content in chat]
    parts, size = [], 0
    for part in template.generate(
        messages=messages, tools=None, documents=None, add_generation_prompt=True, **variables
    ):
        parts.append(part)
        size += len(part)
        if size > MAX_RENDERED:
            raise jinja2.TemplateError(f"prints more than {MAX_RENDERED} characters")
    return "".join(parts)


def _serve() -> None:
    """The other side of `render`: a job on standard input, the answers on standard output."""
    text, variables, conversations = json.load(sys.stdin)
    _limit()
    answers: list[Rendered] = []
    template = None
    for conversation in conversations:
        try:
            template = template or _template(text)
            answers.append((_render_one(template, variables, conversation), ""))
        except MemoryError:
            raise
        except Exception as error:  # whatever a stranger's program raises is its answer
            answers.append(("", _said(error)))
    json.dump(answers, sys.stdout)


def _said(error: Exception) -> str:
    said = " ".join(str(error).split())[:120]
    return f"cannot be rendered: {said or type(error).__name__}"


if __name__ == "__main__":
    _serve()
