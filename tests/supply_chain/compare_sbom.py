"""`compare_sbom.py ENVIRONMENT`: the environment's SBOM names what is installed in it, and nothing else."""

import json
import sys
from importlib import metadata
from pathlib import Path


def main() -> int:
    """Compare; 0 if equal."""
    environment = Path(sys.argv[1])
    document = json.loads((environment / "sbom.cdx.json").read_text())
    listed = {item["name"]: item["version"] for item in (document["metadata"]["component"], *document["components"])}
    (packages,) = environment.glob("lib/python3.*/site-packages")
    found = {
        item.metadata["Name"].lower().replace("_", "-").replace(".", "-"): item.version
        for item in metadata.distributions(path=[str(packages)])
    }
    for name in sorted(listed.keys() | found.keys()):
        if listed.get(name) != found.get(name):
            sys.stdout.write(f"{name}: {listed.get(name)} listed, {found.get(name)} installed\n")
    return int(listed != found)


if __name__ == "__main__":
    sys.exit(main())
