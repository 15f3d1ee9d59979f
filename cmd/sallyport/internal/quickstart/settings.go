package quickstart

import (
	"bytes"
	_ "embed"
	"fmt"
	"text/template"
)

//go:embed templates/sallyport.yaml
var settingsText string

//go:embed templates/listenerprofiles.xml
var listenerProfiles []byte

// renderSettings writes sallyport.yaml. It depends on nothing but the ports, so that a generated file can be told from an edited one.
func renderSettings(ports Ports) ([]byte, error) {
	t, err := template.New(fileSettings).Option("missingkey=error").Parse(settingsText)
	if err != nil {
		return nil, fmt.Errorf("template of %s: %w", fileSettings, err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, struct {
		Ports
		IssuerName string
	}{ports, issuerName}); err != nil {
		return nil, fmt.Errorf("template of %s: %w", fileSettings, err)
	}
	return out.Bytes(), nil
}
