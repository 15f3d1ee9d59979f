package policy

// String is the word for logs, metrics and explanations.
func (w Want) String() string {
	return word(int(w), "off", "optional", "mandatory")
}

// String is the word of the configuration.
func (p Precedence) String() string {
	return word(int(p), "certificate", "token")
}

// String is the word for logs and explanations.
func (p Proof) String() string {
	return word(int(p), "not looked at", "none", "good", "bad", "expired", "wrong audience", "key unavailable")
}

// String is the word for logs, metrics and explanations.
func (m Method) String() string {
	return word(int(m), "nothing", "certificate", "token")
}

// String is the word for logs, metrics and explanations; it is part of what operators alert on.
func (r Reason) String() string {
	return word(int(r), "none", "missing_credentials", "invalid_credentials", "token_expired", "audience_mismatch",
		"key_unavailable", "no_security_declared", "wrong_evidence")
}

func word(i int, words ...string) string {
	if i < len(words) {
		return words[i]
	}
	return "unknown"
}
