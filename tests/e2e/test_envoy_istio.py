"""A CUSTOM AuthorizationPolicy as istiod generates it: asked where the policy says, never elsewhere."""

import ssl

import pytest
from e2e.services import CALLER, FOREIGNER, IMPOSTOR, ROOT, THIEF, WEBSITE, Services, token_for
from e2e.stack import Stack
from support.pki import xfcc
from support.server import ServerProcess

pytestmark = [pytest.mark.envoy]

FLAVOURS = ("istio-sidecar", "istio-gateway")


@pytest.fixture
def mesh(services: Services) -> ServerProcess:
    return services.mesh


def checks(server: ServerProcess) -> float:
    """How many requests the server has decided."""
    lines = server.admin("/metrics")[1].splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("ext_authz_checks_total{"))


@pytest.mark.parametrize("listener", FLAVOURS)
def test_a_request_inside_the_policy_is_decided_here(
    stack: Stack, mesh: ServerProcess, listener: str, http2: bool
) -> None:
    before = checks(mesh)
    path = stack.below("/invoices")
    allowed = stack.send(listener, path, leaf=CALLER, token=token_for(CALLER), http2=http2)
    assert allowed.seen.all("x-caller") == [WEBSITE]
    assert allowed.seen.all("x-subject") == ["alice"]
    assert not allowed.seen.all("authorization")
    assert stack.decision(mesh, path)["thumbprint"] == CALLER.x5t_s256
    for leaf, token in ((THIEF, token_for(CALLER)), (CALLER, token_for(None)), (CALLER, None)):
        path = stack.below("/invoices")
        assert stack.send(listener, path, leaf=leaf, token=token, http2=http2).status == 401
        assert not stack.arrived(path)
    assert checks(mesh) - before == 4


@pytest.mark.parametrize("listener", FLAVOURS)
@pytest.mark.parametrize("prefix", ["/admin", "/nowhere", "/Invoices", "/public/invoices", ""])
def test_a_path_outside_the_policy_never_reaches_us(
    stack: Stack, mesh: ServerProcess, listener: str, prefix: str, http2: bool
) -> None:
    before = checks(mesh)
    path = stack.below(prefix)
    reply = stack.send(listener, path, leaf=CALLER, headers=[("x-subject", "forged")], http2=http2)
    # so nothing is denied and nothing is taken away
    assert reply.seen.all("x-subject") == ["forged"]
    assert checks(mesh) == before
    assert not [record for record in mesh.decisions() if path in record["path"]]


@pytest.mark.parametrize("path", ["/public/../invoices/{}", "/public/%2e%2e/invoices/{}", "/./invoices/{}"])
@pytest.mark.parametrize("listener", [*FLAVOURS, "istio-everything"])
def test_what_the_mesh_normalizes_into_the_policy_is_decided_here(
    stack: Stack, mesh: ServerProcess, listener: str, path: str
) -> None:
    name = stack.below("")[1:]
    assert stack.send(listener, path.format(name), leaf=CALLER).status == 401
    assert stack.decision(mesh, name)["path"] == f"/invoices/{name}"


@pytest.mark.parametrize("path", ["//invoices/{}", "/INVOICES/{}", "/%2finvoices/{}", "/;x/invoices/{}"])
def test_what_the_mesh_does_not_recognise_is_safe_only_when_everything_is_asked(
    stack: Stack, mesh: ServerProcess, path: str
) -> None:
    name = stack.below("")[1:]
    # an upstream that merges slashes or ignores case would serve the invoices
    assert stack.send("istio-sidecar", path.format(name), leaf=CALLER).status == 200
    asked = stack.below("")[1:]
    assert stack.send("istio-everything", path.format(asked), leaf=CALLER).status in {400, 403}
    assert not stack.arrived(asked)
    assert checks(mesh) > 0


@pytest.mark.parametrize("listener", FLAVOURS)
def test_a_forged_element_gives_a_thief_nothing_in_a_mesh(
    stack: Stack, mesh: ServerProcess, listener: str, http2: bool
) -> None:
    assert mesh
    by = "spiffe://cluster.local/ns/billing/sa/api"
    path = stack.below("/invoices")
    for forged in (xfcc(CALLER, by=by), xfcc(CALLER, by="spiffe://cluster.local/ns/a/sa/b"), 'Subject="'):
        headers = [("x-forwarded-client-cert", forged)]
        reply = stack.send(listener, path, leaf=THIEF, token=token_for(CALLER), headers=headers, http2=http2)
        assert reply.status == 401
    assert not stack.arrived(path)


def test_the_gateway_shows_the_certificate_and_the_sidecar_its_hash(stack: Stack, mesh: ServerProcess) -> None:
    assert mesh
    at_gateway = stack.send("istio-gateway", "/invoices/x", leaf=CALLER, token=token_for(CALLER))
    assert at_gateway.seen.all("x-client-certificate") == [CALLER.url_encoded_pem]
    at_sidecar = stack.send("istio-sidecar", "/invoices/x", leaf=CALLER, token=token_for(CALLER))
    assert not at_sidecar.seen.all("x-client-certificate")


def test_strict_mutual_tls_lets_no_certificate_of_another_domain_in(stack: Stack) -> None:
    elsewhere = ROOT.svid("spiffe://elsewhere.example/ns/applications/sa/website")
    for leaf in (FOREIGNER, IMPOSTOR, elsewhere, None):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            stack.send("istio-sidecar", "/invoices/x", leaf=leaf)
