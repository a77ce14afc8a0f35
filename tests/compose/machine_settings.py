"""`machine_settings.py DIRECTORY`: this machine's pip settings and certificate authorities, as files of an image.

What pip was told here by files and by the environment is written to `etc/pip.conf`; files and directories it names are
copied along. The image is thrown away with the engine that holds it.
"""

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

AUTHORITIES = "etc/ssl/certs/ca-certificates.crt"
_KEPT = ("index-url", "extra-index-url", "no-index", "trusted-host", "default-timeout", "timeout", "proxy")


def pip_settings() -> dict[str, str]:
    """Option and value; the environment wins over files, as in pip."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    settings: dict[str, str] = {}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        section, _, option = key.rpartition(".")
        if section in {"global", "install", ":env:"}:
            settings[option] = value.strip("'\"")
    settings.update(
        {name[4:].lower().replace("_", "-"): value for name, value in os.environ.items() if name[:4] == "PIP_"}
    )
    if "proxy" not in settings and (proxy := os.environ.get("https_proxy") or os.environ.get("HTTPS_PROXY")):
        settings["proxy"] = proxy
    return settings


def write(target: Path) -> None:
    """Fill the directory."""
    settings = pip_settings()
    written = {option: settings[option] for option in _KEPT if option in settings}
    authorities = Path(settings.get("cert") or os.environ.get("SSL_CERT_FILE") or f"/{AUTHORITIES}")
    if authorities.is_file():
        (target / AUTHORITIES).parent.mkdir(parents=True)
        shutil.copyfile(authorities, target / AUTHORITIES)
        written["cert"] = f"/{AUTHORITIES}"
    links = []
    for number, link in enumerate(settings.get("find-links", "").split()):
        if Path(link).is_dir():
            shutil.copytree(link, target / f"opt/links/{number}", symlinks=False)
            links.append(f"/opt/links/{number}")
        else:
            links.append(link)
    if links:
        written["find-links"] = "\n".join(links)
    config = configparser.RawConfigParser()
    config["global"] = written
    (target / "etc").mkdir(parents=True, exist_ok=True)
    with (target / "etc/pip.conf").open("w") as file:
        config.write(file)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
