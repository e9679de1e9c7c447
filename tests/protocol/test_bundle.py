"""The file that enrols a device."""

import json

import pytest

from thingctl_protocol.bundle import BUNDLE_MAX, Bundle, decode_bundle, encode_bundle
from thingctl_protocol.errors import ProtocolError

WHOLE = Bundle(
    "lamp", "mqtts://broker.example:8883", "lamp", "secret", "CA", "CERT", "KEY", "fleet", presence=True
)
LEAST = Bundle("lamp", "mqtt://127.0.0.1:1883")


@pytest.mark.parametrize("bundle", [WHOLE, LEAST])
def test_what_is_written_is_read_again(bundle):
    assert decode_bundle(encode_bundle(bundle)) == bundle


def test_the_file_is_as_documented():
    assert json.loads(encode_bundle(WHOLE)) == {
        "thingctlBundle": 1,
        "thing": "lamp",
        "url": "mqtts://broker.example:8883",
        "username": "lamp",
        "password": "secret",
        "ca": "CA",
        "cert": "CERT",
        "key": "KEY",
        "topicRoot": "fleet",
        "presence": True,
    }
    assert json.loads(encode_bundle(LEAST)).keys() == {"thingctlBundle", "thing", "url"}


def test_unknown_fields_are_ignored():
    content = json.loads(encode_bundle(LEAST)) | {"colour": "red"}
    assert decode_bundle(json.dumps(content).encode()) == LEAST


@pytest.mark.parametrize(
    ("changed", "pointer"),
    [
        ({"thing": "a/b"}, "/thing"),
        ({"url": "http://x"}, "/url"),
        ({"url": "mqtt://x\n"}, "/url"),
        ({"cert": "C"}, "/key"),
        ({"key": "K"}, "/key"),
        ({"thingctlBundle": 2}, "/thingctlBundle"),
        ({"topicRoot": "a/#"}, None),
        ({"password": 1}, None),
    ],
)
def test_what_is_none_is_refused(changed, pointer):
    content = json.loads(encode_bundle(LEAST)) | changed
    with pytest.raises(ProtocolError) as raised:
        decode_bundle(json.dumps(content).encode())
    if pointer is not None:
        assert raised.value.pointer == pointer


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b"[" * 10_000, b" " * (BUNDLE_MAX + 1)])
def test_other_files_are_refused(content):
    with pytest.raises(ProtocolError):
        decode_bundle(content)
