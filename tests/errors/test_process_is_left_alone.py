"""Nothing outside these modules is changed: a dedicated worker runs other scripts in the same process."""

import json
import os
import subprocess
import textwrap
from typing import Any

import pytest

from tests.conftest import Body
from tests.standin import worker
from tests.standin.kustomer import Kustomer

STEPS = ["create_message", "find_customer", "find_conversation", "upload_attachment", "check_connection"]
IMPORT_STEPS = "".join(f"import f.kustomer.{step}\n" for step in STEPS)


def python(*code: str, **given: Any) -> Any:
    """What a job's Python prints as JSON after running this code, in which ``given`` are names."""
    lines = [f"{name} = {value!r}\n" for name, value in given.items()] + [textwrap.dedent(each) for each in code]
    environment = {"PATH": os.defpath, "PYTHONPATH": str(worker.ROOT)}
    done = subprocess.run(
        [worker.JOB_PYTHON, "-c", "".join(lines)], env=environment, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


TEXTS = {
    "Shift JIS": "これは日本語で書かれた文章です。文字の種類を当てるには、これくらいの長さが要ります。".encode(
        "shift_jis"
    ),
    "EUC-KR": "이 글은 한국어로 쓰였으며 그 부호화 방식은 어디에도 적혀 있지 않습니다.".encode("euc_kr"),
    "UTF-16": "Grüße aus Köln".encode("utf-16"),
}
READ_TEXTS = """
import json
import requests

texts = []
for content in CONTENTS:
    response = requests.Response()
    response._content = bytes.fromhex(content)
    texts.append(response.text)
print(json.dumps(texts))
"""


def test_other_scripts_read_text_as_they_would_without_the_steps() -> None:
    """The guesser of encodings that requests uses is there."""
    contents = [text.hex() for text in TEXTS.values()]
    assert python(IMPORT_STEPS, READ_TEXTS, CONTENTS=contents) == python(READ_TEXTS, CONTENTS=contents)


TELL_PROCESS = """
import gc
import json
import logging
import requests
import signal
import socket
import sys
import urllib3
import warnings

print(json.dumps({
    "hidden modules": [name for name, module in sys.modules.items() if module is None],
    "guesser of encodings": str(getattr(requests.compat, "chardet", None)),
    "warnings filters": sorted(map(str, warnings.filters)),
    "path": sys.path,
    "importers": len(sys.meta_path),
    "hooks": [sys.excepthook is sys.__excepthook__, sys.gettrace(), sys.getprofile()],
    "time-out of sockets": socket.getdefaulttimeout(),
    "loggers": [logging.root.level, len(logging.root.handlers), logging.getLogger("urllib3").level],
    "signals": [str(signal.getsignal(each)) for each in (signal.SIGALRM, signal.SIGPIPE, signal.SIGTERM)],
    "limit of recursion": sys.getrecursionlimit(),
    "garbage": gc.get_threshold(),
}))
"""


def test_the_process_is_as_it_would_be_without_the_steps() -> None:
    """Modules, filters, hooks and limits."""
    assert python(IMPORT_STEPS, TELL_PROCESS) == python(TELL_PROCESS)


COMPARE = """
import http.client
import json
import requests
import socket
import ssl
import sys
import types
import urllib.request
import urllib3

CODE = (types.FunctionType, types.BuiltinFunctionType, type, property, classmethod, staticmethod)


def code():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("f", "__main__"):
            continue
        for key, value in list(vars(module).items()):
            if isinstance(value, CODE):
                found[f"{name}.{key}"] = id(value)
            if isinstance(value, type):
                found |= {f"{name}.{key}.{each}": id(it) for each, it in vars(value).items() if isinstance(it, CODE)}
    return found
"""


def job_code(name: str) -> str:
    """Code that runs a job whose message says this, and keeps what Kustomer has of it in a variable of that name."""
    return f"{name} = main(AUTH, MESSAGE | {{'preview': '{name}'}})['data']['attributes']['preview']\n"


def test_no_code_of_other_modules_is_replaced(auth: Body, message: Body) -> None:
    """Neither by importing the steps nor by running one."""
    changed = python(
        COMPARE,
        "before = code()\n",
        IMPORT_STEPS,
        "from f.kustomer.create_message import main\n",
        job_code("first"),
        "after = code()\n",
        "print(json.dumps([name for name, each in before.items() if after.get(name) != each]))\n",
        AUTH=auth,
        MESSAGE=message,
    )
    assert changed == []


FORK = """
import json
import os
import sys
from f.kustomer.create_message import main

{before}
read, write = os.pipe()
child = os.fork()
if not child:
    sys.stdout = open(os.devnull, "w")
    {child}
    os.write(write, second.encode())
    os._exit(0)
{during}
os.waitpid(child, 0)
second = os.read(read, 100).decode()
{after}
print(json.dumps([first, second, third]))
"""


@pytest.mark.parametrize("together", [False, True], ids=["one after the other", "at once"])
def test_parent_and_child_do_not_share_a_connection(
    kustomer: Kustomer, auth: Body, message: Body, together: bool
) -> None:
    """Else they swap answers."""
    third = job_code("third")
    code = FORK.format(
        before=job_code("first"),
        child=job_code("second").strip(),
        during=third if together else "",
        after="" if together else third,
    )
    assert python(code, AUTH=auth, MESSAGE=message) == ["first", "second", "third"]
    by = {json.loads(seen.body)["preview"]: seen.connection for seen in kustomer.posts}
    assert by["second"] not in (by["first"], by["third"])
    assert sorted(each["attributes"]["preview"] for each in kustomer.messages) == ["first", "second", "third"]
