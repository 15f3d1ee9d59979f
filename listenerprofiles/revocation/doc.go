// Package revocation answers whether issuers have revoked certificates, by CRLs (RFC 5280) and OCSP (RFC 6960).
//
// A Registry renews what is known, in tasks of its own; its Checkers answer from memory, one for each Policy. The room is
// longer than others since two protocols stand in it, each with a reader that believes nothing, and since a third of it is
// who may be asked when, and by how many at once, so that no hostile or silent address holds anybody up.
package revocation
