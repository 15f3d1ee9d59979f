package config_test

import (
	"path/filepath"
	"testing"

	"sallyport/certstore"
	"sallyport/cmd/sallyport/internal/config"
)

func TestStore(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "sallyport.yaml")
	t.Setenv("DB_PASSWORD", "a@b:c/d?e#f")
	for _, c := range []struct {
		yaml string
		want certstore.Source
	}{
		{"", certstore.Source{URL: "sqlite:" + filepath.Join(dir, "sallyport.db")}},
		{"store: sqlite:../certs.db", certstore.Source{URL: "sqlite:" + filepath.Join(filepath.Dir(dir), "certs.db")}},
		{"store: {url: sqlite:certs.db}", certstore.Source{URL: "sqlite:" + filepath.Join(dir, "certs.db")}},
		{
			"store: postgres://gw:p%40ss@db.example.com/certs",
			certstore.Source{URL: "postgres://gw@db.example.com:5432/certs", Password: "p@ss"},
		},
		{
			`store: {url: "mysql://gw@db/certs", password: "${env:DB_PASSWORD}", caFile: ca.pem}`,
			certstore.Source{URL: "mysql://gw@db:3306/certs", Password: "a@b:c/d?e#f", CAFile: filepath.Join(dir, "ca.pem")},
		},
	} {
		put(t, file, []byte("listeners: [{name: http, address: '127.0.0.1:0'}]\n"+c.yaml+"\n"))
		cfg, err := config.Load(file)
		if err != nil {
			t.Errorf("%s: %v", c.yaml, err)
			continue
		}
		if cfg.Store.Value != c.want {
			t.Errorf("%s: %+v", c.yaml, cfg.Store.Value)
		}
	}
}
