"""The values on the page about installing with Helm, rendered by the real engine and loaded by the server."""

import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from support.charts import manifests, mount
from support.custom_resources import MAY_BUILD, judge
from support.manifests import check, documents
from support.pki import authority
from support.server import route_policy

from ext_authz.cli.main import command_line
from ext_authz.runtime.assembly import assemble

pytestmark = MAY_BUILD

PAGE = Path(__file__).parents[2] / "docs" / "install-helm.md"
BLOCKS: list[dict[str, Any]] = [
    yaml.safe_load(dedent(text))
    for text in re.findall(r"^```yaml values\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
]
CA = authority()
SERVING = CA.leaf(dns_sans=["authz.example.com"])
PUBLIC = {"name": "all", "matches": [{"path": {"value": "/"}}], "public": True}
OTHERS = {
    "billing-policies": {"billing.yaml": route_policy(PUBLIC, name="billing", hostnames=["billing.example.com"])},
    "shop-policies": {"shop.yaml": route_policy(PUBLIC, name="shop", hostnames=["shop.example.com"])},
    "istio-ca-root-cert": {"root-cert.pem": CA.pem.decode()},
    "partner-ca": {"ca.crt": authority("partner.example").pem.decode()},
    "edge-ext-authz-tls": {
        "tls.crt": SERVING.chain_pem.decode(),
        "tls.key": SERVING.key_pem.decode(),
        "ca.crt": CA.pem.decode(),
    },
    "authz.example.com-tls": {"tls.crt": SERVING.chain_pem.decode(), "tls.key": SERVING.key_pem.decode()},
}


def test_what_captures_a_request_in_a_cluster_is_taken_by_one_and_is_what_the_command_takes() -> None:
    (text,) = re.findall(
        r"^```yaml kubernetes\n(.*?)^```$", (PAGE.parent / "operations.md").read_text(), re.MULTILINE | re.DOTALL
    )
    pod, service = documents(text)
    for manifest in (pod, service):
        check(manifest)
    assert judge(pod) == []
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    (container,) = pod["spec"]["containers"]
    assert service["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    command_line(["capture"]).parse_args(container["args"])


def test_the_page_has_values() -> None:
    assert len(BLOCKS) >= 5


@pytest.mark.parametrize("values", BLOCKS, ids=" ".join)
def test_values_of_the_page_are_rendered_into_objects_that_fit_their_schemas_and_into_a_server(
    values: dict[str, Any], tmp_path: Path
) -> None:
    objects = manifests(values)
    for manifest in objects:
        check(manifest)
    assert assemble(str(mount(objects, OTHERS, tmp_path))).configuration.listener.address == "0.0.0.0:9000"
