# What bench/workload.py requires, for OPA-Envoy: one route, an access token of one issuer with audience, scope and
# lifetime, bound to the client's certificate (RFC 8705), and four headers set.
#
# Not checked, in contrast to ext-authz: the certificate's chain and the rules for SPIFFE leaf certificates (the SPIFFE ID
# is taken from the proxy), `typ` and unknown header parameters, `iat`, `nbf` only as far as decode_verify does, duplicate
# JSON members and sizes, ambiguous paths, `Bearer a,Bearer b`, a token in the query, and headers of the same names that
# the client sent in another spelling.
package bench.authz

import rego.v1

default result := {"allowed": false, "http_status": 401}

result := {"allowed": true, "headers": headers} if {
	input.attributes.request.http.method == "GET"
	input.parsed_path[0] == "service-0"
	input.parsed_path[1] == "invoices"
	input.attributes.destination.principal == "spiffe://cluster.local/ns/billing/sa/api"
	valid
	"invoices.read" in split(claims.scope, " ")
	claims.cnf["x5t#S256"] == thumbprint
}

headers := {
	"x-subject": claims.sub,
	"x-client": claims.client_id,
	"x-scopes": claims.scope,
	"x-caller": input.attributes.source.principal,
}

token := substring(authorization, 7, -1) if {
	authorization := input.attributes.request.http.headers.authorization
	startswith(authorization, "Bearer ")
}

verified := io.jwt.decode_verify(token, {
	"cert": data.bench.jwks,
	"iss": data.bench.issuer,
	"aud": data.bench.audience,
	"alg": "RS256",
})

valid if verified[0]

claims := verified[2]

# SHA-256 of the DER, base64url without padding; only what lies between the PEM lines is decoded
thumbprint := base64url.encode_no_pad(hex.decode(crypto.sha256(base64.decode(body)))) if {
	pem := urlquery.decode(input.attributes.source.certificate)
	body := split(pem, "-----")[2]
}
