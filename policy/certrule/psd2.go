package certrule

import (
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// oidPSD2 is id-etsi-psd2-qcStatement of ETSI TS 119 495.
const oidPSD2 = "0.4.0.19495.2"

// psd2Roles are the roles of ETSI TS 119 495, section 5.2.2, by their object identifiers.
var psd2Roles = map[string]string{
	"0.4.0.19495.1.1": "PSP_AS",
	"0.4.0.19495.1.2": "PSP_PI",
	"0.4.0.19495.1.3": "PSP_AI",
	"0.4.0.19495.1.4": "PSP_IC",
}

// PSD2Roles are the roles that a PSD2 statement may name: account servicing, payment initiation, account information and
// the issuing of card-based instruments.
func PSD2Roles() []string { return []string{"PSP_AS", "PSP_PI", "PSP_AI", "PSP_IC"} }

// maxStatements is how many statements a certificate may have.
const maxStatements = 32

// parsePSD2Roles reads the roles of the one PSD2 statement in qcStatements (RFC 3739, section 3.2.6):
//
//	QCStatements ::= SEQUENCE OF SEQUENCE { statementId OBJECT IDENTIFIER, statementInfo ANY OPTIONAL }
//	PSD2QcType ::= SEQUENCE { rolesOfPSP SEQUENCE OF RoleOfPSP, nCAName UTF8String, nCAId UTF8String }
//	RoleOfPSP ::= SEQUENCE { roleOfPspOid OBJECT IDENTIFIER, roleOfPspName UTF8String }
//
// Whatever isn't wholly as it has to be has no role: a second statement, a role that is unknown or here twice, one whose
// name is another role's, anything behind the end.
func parsePSD2Roles(der []byte) []string {
	in, list := cryptobyte.String(der), cryptobyte.String(nil)
	if len(der) > maxExtension || !in.ReadASN1(&list, asn1.SEQUENCE) || !in.Empty() {
		return nil
	}
	var roles []string
	found := false
	for n := 0; !list.Empty(); n++ {
		var statement, oid cryptobyte.String
		if n == maxStatements || !list.ReadASN1(&statement, asn1.SEQUENCE) || !statement.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) {
			return nil
		}
		id, ok := dotted(oid)
		if !ok {
			return nil
		}
		if id != oidPSD2 {
			if !statement.Empty() && (!statement.ReadAnyASN1(new(cryptobyte.String), new(asn1.Tag)) || !statement.Empty()) {
				return nil
			}
			continue
		}
		if roles, ok = readPSD2Type(statement); !ok || found {
			return nil
		}
		found = true
	}
	return roles
}

// readPSD2Type reads a PSD2QcType, which is all of in.
func readPSD2Type(in cryptobyte.String) (roles []string, ok bool) {
	var info, list cryptobyte.String
	if !in.ReadASN1(&info, asn1.SEQUENCE) || !in.Empty() || !info.ReadASN1(&list, asn1.SEQUENCE) {
		return nil, false
	}
	for range 2 { // nCAName and nCAId
		if _, ok := readUTF8(&info); !ok {
			return nil, false
		}
	}
	if !info.Empty() {
		return nil, false
	}
	for !list.Empty() {
		var pair, oid cryptobyte.String
		if !list.ReadASN1(&pair, asn1.SEQUENCE) || !pair.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) {
			return nil, false
		}
		id, _ := dotted(oid)
		name, ok := readUTF8(&pair)
		if role := psd2Roles[id]; !ok || !pair.Empty() || role == "" || name != role || slices.Contains(roles, role) {
			return nil, false
		}
		roles = append(roles, name)
	}
	return roles, len(roles) > 0
}

// readUTF8 reads a UTF8String of 1 to 256 characters.
func readUTF8(in *cryptobyte.String) (string, bool) {
	if !in.PeekASN1Tag(asn1.UTF8String) {
		return "", false
	}
	s, ok := readText(in)
	return s, ok && len([]rune(s)) <= 256
}
