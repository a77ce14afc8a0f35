"""Sockets are bound as configured, and never taken from someone who serves on them."""

import socket
from pathlib import Path

import pytest

from ext_authz.runtime.listening import Listening, split_address


@pytest.mark.parametrize(
    ("address", "parts"), [("127.0.0.1:9000", ("127.0.0.1", 9000)), ("[::1]:1", ("::1", 1)), ("a.b:0", ("a.b", 0))]
)
def test_an_address_is_host_and_port(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


def test_a_host_name_with_two_addresses_has_one_port() -> None:
    listening = Listening.open("localhost:0")
    ports = {one.getsockname()[1] for one in listening.sockets}
    assert listening.address == f"localhost:{ports.pop()}"
    assert not ports
    listening.close()


def test_a_name_that_is_nobodys_is_an_os_error() -> None:
    with pytest.raises(OSError, match="not an address of this machine"):
        Listening.open("no-such-host.invalid:0")


def test_a_port_in_use_is_an_os_error() -> None:
    first = Listening.open("127.0.0.1:0")
    with pytest.raises(OSError, match="is it in use"):
        Listening.open(first.address)
    first.close()
    Listening.open(first.address).close()


def test_a_socket_file_is_made_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "check.sock"
    listening = Listening.open(f"unix:{path}")
    assert path.is_socket()
    listening.close()
    assert not path.exists()


def test_the_socket_file_of_a_successor_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "check.sock"
    listening = Listening.open(f"unix:{path}")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(str(path))
        listening.close()
        assert path.is_socket()


def test_a_socket_that_is_served_is_not_taken(tmp_path: Path) -> None:
    first = Listening.open(f"unix:{tmp_path}/check.sock")
    with pytest.raises(OSError, match="is it in use"):
        Listening.open(f"unix:{tmp_path}/check.sock")
    first.close()


def test_a_file_that_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "check.sock"
    path.write_text("precious")
    with pytest.raises(OSError, match="no socket"):
        Listening.open(f"unix:{path}")
    assert path.read_text() == "precious"


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot listen on"):
        Listening.open(f"unix:{tmp_path}/none/check.sock")
