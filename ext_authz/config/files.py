"""The files a configuration names: found, read, and their content checked before anything depends on it."""

import glob
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from ext_authz.config.problem import Place, Problems
from ext_authz.config.validation import field_name
from ext_authz.config.yaml_source import MAX_FILE_BYTES, Document, ValuePath, parse_yaml

__all__ = ["NamedFiles", "check_roots", "read_documents"]

_TESTS = (".tests.yaml", ".tests.yml")


def read_documents(path: Path, problems: Problems, place: Place | None = None, field: str = "") -> tuple[Document, ...]:
    """The documents of a YAML file.

    Args:
        path: the file.
        problems: takes what is wrong.
        place: of the value that names the file, for a file that cannot be read.
        field: of that value.
    """
    data = _read(path, problems, place or Place(str(path)), field)
    return () if data is None else parse_yaml(data, str(path), problems)


def _read(path: Path, problems: Problems, place: Place, field: str) -> bytes | None:
    try:
        with path.open("rb") as file:
            # one byte more, so that the bound is seen
            return file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        # ValueError: a NUL in the name
        why = error.strerror if isinstance(error, OSError) and error.strerror else "not a file name"
        problems.add(
            place, field, f"the file `{path}` cannot be read: {why.lower()}", "write the name of a readable file"
        )
        return None


def check_roots(pem: bytes) -> None:
    """Raises ValueError when `pem` holds no certificate that can be read."""
    try:
        x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ValueError("it holds no certificate, or a malformed one") from None


class NamedFiles:
    """Files named in one document, relative to it.

    Attributes:
        watched: every file and directory whose change means another configuration.
    """

    def __init__(self, document: Document, problems: Problems, before_reading: Callable[[str], None]) -> None:
        """Resolve names against the directory of `document`.

        Args:
            document: whose file was looked at already.
            problems: takes what is wrong.
            before_reading: is told each absolute path before anything is read from it.
        """
        self._document = document
        self._problems = problems
        self._before_reading = before_reading
        self._base = Path(document.file).parent
        self.watched: dict[str, None] = {str(Path(document.file).absolute()): None}

    def resolve(self, name: str) -> str:
        """The absolute path of `name`; it is watched from now on."""
        path = str((self._base / name).absolute())
        self._watch(path)
        return path

    def _watch(self, path: str) -> None:
        if path not in self.watched:
            self._before_reading(path)
            self.watched[path] = None

    def read(self, name: str, at: ValuePath) -> bytes | None:
        """The content of the file `name`, which is written at `at`; None when it cannot be read (a problem)."""
        return _read(Path(self.resolve(name)), self._problems, self._document.place(at), field_name(at))

    def check(self, name: str, at: ValuePath, check: Callable[[bytes], object], instead: str) -> None:
        """Record a problem when `name` cannot be read or `check` raises ValueError for its content."""
        data = self.read(name, at)
        if data is None:
            return
        try:
            check(data)
        except ValueError as error:
            detail = str(error) or "unreadable"
            self._problems.add(
                self._document.place(at), field_name(at), f"the file `{name}` cannot be used: {detail}", instead
            )

    def check_key_pair(self, certificate: str, key: str, at: ValuePath) -> None:
        """Record a problem when the files are not a certificate chain and its leaf's private key."""
        problems = len(self._problems)
        leaf: list[bytes] = []

        def read_chain(pem: bytes) -> None:
            try:
                public = x509.load_pem_x509_certificates(pem)[0].public_key()
            except ValueError:
                raise ValueError("it holds no certificate, or a malformed one") from None
            leaf.append(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

        def read_key(pem: bytes) -> None:
            try:
                public = load_pem_private_key(pem, None).public_key()
            except TypeError:
                raise ValueError("the key is encrypted") from None
            except (ValueError, UnsupportedAlgorithm):
                raise ValueError("it holds no private key that can be read") from None
            leaf.append(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

        self.check(certificate, (*at, "certificate_file"), read_chain, "write a PEM file with the chain, leaf first")
        self.check(key, (*at, "key_file"), read_key, "write a PEM file with the unencrypted private key of the leaf")
        if len(self._problems) == problems and leaf[0] != leaf[1]:
            path = (*at, "key_file")
            self._problems.add(
                self._document.place(path),
                field_name(path),
                "the key is not the certificate's",
                "write the leaf's own key",
            )

    def expand(self, pattern: str, at: ValuePath) -> tuple[Path, ...]:
        """The policy files that `pattern` stands for, sorted; files with expected decisions are left out."""
        place, field = self._document.place(at), field_name(at)
        if "\0" in pattern:
            self._problems.add(place, field, "not a file name", "write it like `policies/*.yaml`")
            return ()
        if not glob.has_magic(pattern):
            self.resolve(pattern)
            return (self._base / pattern,)
        # the directory is watched for files that come later
        self.resolve(str(Path(*_before_wildcard(pattern))))
        found = self._found(pattern)
        while directories := {str(path.parent.absolute()) for path in found} - self.watched.keys():
            # what came into one of them since it was searched would be seen by nobody
            for directory in sorted(directories):
                self._watch(directory)
            found = self._found(pattern)
        for path in found:
            self._watch(str(path.absolute()))
        if not found:
            self._problems.warn(
                place, field, f"no file matches `{pattern}`", "every request that no other policy covers is denied"
            )
        return found

    def _found(self, pattern: str) -> tuple[Path, ...]:
        names = sorted(glob.glob(pattern, root_dir=self._base, recursive=True))  # noqa: PTH207 - Path.glob refuses absolute patterns
        return tuple(path for name in names if not name.endswith(_TESTS) and (path := self._base / name).is_file())


def _before_wildcard(pattern: str) -> tuple[str, ...]:
    parts = Path(pattern).parts
    return parts[: next(index for index, part in enumerate(parts) if glob.has_magic(part))]
