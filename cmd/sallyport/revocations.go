package main

import (
	"fmt"
	"time"

	"sallyport/gateway/observe"
	"sallyport/listenerprofiles/revocation"
)

// sourceLines tell what is wrong with CRLs and those who are asked about certificates.
func sourceLines(sources []revocation.Source) (lines []string) {
	told := map[string]bool{}
	for _, s := range sources {
		name := fmt.Sprintf("revocation: %s %s", s.Kind, s.Location)
		if s.Issuer != "" && s.Stale {
			lines = append(lines, fmt.Sprintf("%s: the CRL of %s is stale: it counted until %s", name, s.Issuer, s.Until.UTC().Format(time.RFC3339)))
		}
		if told[name] {
			continue // with another list of the same source
		}
		told[name] = true
		switch {
		case s.Problem != "" && s.Kind == revocation.Responder:
			lines = append(lines, fmt.Sprintf("%s: no answer that counts since %s: %s", name, s.Since.UTC().Format(time.RFC3339), s.Problem))
		case s.Problem != "" && s.Issuer == "":
			lines = append(lines, fmt.Sprintf("%s: there was no CRL yet, and none to be had since %s: %s", name, s.Since.UTC().Format(time.RFC3339), s.Problem))
		case s.Problem != "":
			lines = append(lines, fmt.Sprintf("%s: what is there is not taken since %s, and the last good one counts until its end: %s",
				name, s.Since.UTC().Format(time.RFC3339), s.Problem))
		case s.Issuer == "" && s.Stale:
			lines = append(lines, name+": there was no CRL yet")
		}
	}
	return lines
}

// revocations are the sources for the metrics.
func revocations(sources []revocation.Source) (list []observe.Revocation) {
	for _, s := range sources {
		list = append(list, observe.Revocation{
			Kind: string(s.Kind), Location: s.Location, Issuer: s.Issuer, Entries: s.Entries,
			Until: s.Until, Seen: s.Seen, Stale: s.Stale, Problem: s.Problem != "",
		})
	}
	return list
}
