package main

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"sallyport/cmd/sallyport/internal/config"
)

// A composition is what docker-compose.yml may hold: another key is an error.
type composition struct {
	Hardened any `yaml:"x-hardened"`
	Server   any `yaml:"x-server"`
	Gateway  any `yaml:"x-gateway"`
	Node     any `yaml:"x-node"`
	Services map[string]*service
	Networks map[string]struct {
		Internal bool
		IPAM     struct{ Config []struct{ Subnet string } } `yaml:"ipam"`
	}
	Volumes map[string]any
}

type service struct {
	Image           string
	Build           *struct{ Context, Dockerfile, Target string }
	Entrypoint      []string
	Command         []string
	User            string
	WorkingDir      string `yaml:"working_dir"`
	Environment     map[string]string
	Volumes         []string
	Tmpfs           []string
	Ports           []string
	Networks        networks
	NetworkMode     string            `yaml:"network_mode"`
	DependsOn       map[string]depend `yaml:"depends_on"`
	Healthcheck     *healthcheck
	ReadOnly        bool     `yaml:"read_only"`
	CapDrop         []string `yaml:"cap_drop"`
	SecurityOpt     []string `yaml:"security_opt"`
	StopGracePeriod string   `yaml:"stop_grace_period"`
	Restart         string
	Profiles        []string
}

type depend struct{ Condition string }

type healthcheck struct {
	Test              []string
	Interval, Timeout string
	Retries           int
	StartPeriod       string `yaml:"start_period"`
}

// networks are a list of names, or a map of them with addresses.
type networks map[string]struct {
	IPv4Address string `yaml:"ipv4_address"`
}

func (n *networks) UnmarshalYAML(data []byte) error {
	var names []string
	if yaml.Unmarshal(data, &names) == nil {
		*n = networks{}
		for _, name := range names {
			(*n)[name] = struct {
				IPv4Address string `yaml:"ipv4_address"`
			}{}
		}
		return nil
	}
	type plain networks
	return yaml.UnmarshalWithOptions(data, (*plain)(n), yaml.DisallowUnknownField())
}

// cluster returns the services that `docker compose up` starts and leaves running.
func (c *composition) cluster() (names []string) {
	for name, s := range c.Services {
		if len(s.Profiles) == 0 && s.Restart != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func readComposition(t *testing.T) *composition {
	t.Helper()
	c := &composition{}
	if err := yaml.UnmarshalWithOptions([]byte(readDoc(t, "docker-compose.yml")), c, yaml.DisallowUnknownField()); err != nil {
		t.Fatal(err)
	}
	return c
}

// A tested is a docker-compose.yml, whose folders are copied to dir, and filled by setup.
type tested struct {
	*composition
	dir string
}

// copyCluster copies what docker-compose.yml may mount, and makes what its service setup makes.
func copyCluster(t *testing.T) *tested {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	c := &tested{readComposition(t), t.TempDir()}
	if err := os.CopyFS(filepath.Join(c.dir, "deploy"), os.DirFS(filepath.Join(repository, "deploy"))); err != nil {
		t.Fatal(err)
	}
	cluster := filepath.Join(c.dir, "deploy", "cluster")
	made, err := filepath.Glob(filepath.Join(cluster, "*", "made*")) // by who tried it here
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range made {
		if err := os.RemoveAll(folder); err != nil {
			t.Fatal(err)
		}
	}
	setup := c.Services["setup"]
	script, ok := c.onHost(setup, setup.Entrypoint[len(setup.Entrypoint)-1])
	if !ok {
		t.Fatalf("setup's entrypoint is %q", setup.Entrypoint)
	}
	for range 2 { // the second time it has nothing to do
		if out, err := exec.Command("sh", script).CombinedOutput(); err != nil || len(out) > 0 {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	return c
}

// onHost returns where a path of a service's container is in the copy; ok is false if it is not in a mounted folder.
func (c *tested) onHost(s *service, name string) (host string, ok bool) {
	for _, v := range s.Volumes {
		from, to := volume(v)
		if rest, inside := strings.CutPrefix(name, to); inside && strings.HasPrefix(from, ".") && (rest == "" || rest[0] == '/') {
			return filepath.Join(c.dir, from, filepath.FromSlash(rest)), true
		}
	}
	return "", false
}

func volume(text string) (from, to string) {
	words := strings.Split(text, ":")
	return words[0], words[1]
}

// TestComposeIsTheCluster: docker-compose.yml starts what scripts/cluster starts, each part closed as far as it goes,
// checked, and after what it needs.
func TestComposeIsTheCluster(t *testing.T) {
	c := readComposition(t)
	parts := regexp.MustCompile(`(?m)^parts='([^']*)'`).FindStringSubmatch(readDoc(t, "scripts/cluster"))
	if parts == nil {
		t.Fatal("scripts/cluster names no parts")
	}
	names := strings.Fields(parts[1])
	slices.Sort(names)
	if !slices.Equal(names, c.cluster()) {
		t.Errorf("docker-compose.yml starts %q, scripts/cluster %q", c.cluster(), names)
	}
	for name, s := range c.Services {
		if name != "quickstart" && (!s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) ||
			!slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"})) {
			t.Errorf("%s is not closed", name)
		}
		if s.User == "" {
			t.Errorf("%s may run as root", name)
		}
		if slices.Contains(names, name) && s.Healthcheck == nil {
			t.Errorf("%s has no health check", name)
		}
		for other, d := range s.DependsOn {
			on, want := c.Services[other], "service_healthy"
			if other == "setup" {
				want = "service_completed_successfully"
			}
			if on == nil || d.Condition != want {
				t.Errorf("%s depends on %s, %s", name, other, d.Condition)
			}
		}
		for network := range s.Networks {
			if _, ok := c.Networks[network]; !ok {
				t.Errorf("%s is in the network %s, which isn't there", name, network)
			}
		}
	}
	for name, s := range c.Services {
		_, inside := s.Networks["data"]
		if allowed := []string{"gateway1", "gateway2", "postgres", "redis"}; inside != slices.Contains(allowed, name) {
			t.Errorf("%s is in the network of the data: %t", name, inside)
		}
	}
	if !c.Networks["data"].Internal {
		t.Error("the network of the data leads outside")
	}
}

// images are the programs of each image that docker-compose.yml calls, and the variables that it reads.
var images = map[string]struct{ programs, environment []string }{
	"redis:7":                {[]string{"redis-server", "redis-cli"}, nil},
	"postgres:15-bookworm":   {[]string{"pg_isready"}, []string{"PGDATA", "POSTGRES_PASSWORD_FILE"}},
	"nginx:1.28-alpine":      {[]string{"nginx", "wget"}, nil},
	"prom/prometheus:v3.5.0": {[]string{"wget"}, nil},
}

// TestComposeNamesWhatExists: stages of the Dockerfile, files and folders, commands and flags, programs of images, variables.
func TestComposeNamesWhatExists(t *testing.T) {
	c := copyCluster(t)
	dockerfile := readDoc(t, "deploy/Dockerfile")
	for name, s := range c.Services {
		switch {
		case (s.Build == nil) == (s.Image == ""):
			t.Errorf("%s is to have an image or to build one", name)
		case s.Image != "":
			image, ok := images[s.Image]
			if !ok {
				t.Errorf("%s: this test doesn't know what is in the image %s", name, s.Image)
			}
			for variable := range s.Environment {
				if !slices.Contains(image.environment, variable) {
					t.Errorf("%s: the image doesn't read %s", name, variable)
				}
			}
			for _, line := range [][]string{s.Entrypoint, s.Command, test(s)} {
				if len(line) > 0 && !strings.HasPrefix(line[0], "-") && !slices.Contains(image.programs, line[0]) {
					t.Errorf("%s: the image has no program %s", name, line[0])
				}
			}
		default:
			checkBuild(t, name, s, dockerfile)
		}
		for _, v := range s.Volumes {
			from, to := volume(v)
			if _, named := c.Volumes[from]; !named && from != "./config" { // the user's own
				if _, err := os.Stat(filepath.Join(repository, from)); err != nil || !strings.HasPrefix(from, ".") {
					t.Errorf("%s mounts %s: %v", name, from, err)
				}
			}
			if !path.IsAbs(to) {
				t.Errorf("%s mounts something at %s", name, to)
			}
		}
		words := slices.Concat(s.Entrypoint, s.Command, test(s))
		for _, value := range s.Environment {
			words = append(words, value)
		}
		for _, word := range words {
			_, value, isFlag := strings.Cut(word, "=")
			if isFlag {
				word = value
			}
			if host, mounted := c.onHost(s, word); mounted {
				if _, err := os.Stat(host); err != nil {
					t.Errorf("%s: %s: %v", name, word, err)
				}
			}
		}
	}
	text := regexp.MustCompile(`(?m)#.*$`).ReplaceAllString(readDoc(t, "docker-compose.yml"), "")
	for _, variable := range regexp.MustCompile(`\$\{?(\w*)`).FindAllStringSubmatch(text, -1) {
		if variable[1] != "UID" && variable[1] != "GID" {
			t.Errorf("it reads the variable %q", variable[1])
		}
	}
	for _, name := range regexp.MustCompile(`/docker-entrypoint-initdb\.d/[\w./]+`).FindAllString(readDoc(t, "deploy/cluster/postgres/sallyport.sql"), -1) {
		if host, ok := c.onHost(c.Services["postgres"], name); !ok {
			t.Errorf("sallyport.sql reads %s, which isn't mounted", name)
		} else if _, err := os.Stat(host); err != nil {
			t.Error(err)
		}
	}
}

// test is the command of a service's health check.
func test(s *service) []string {
	if s.Healthcheck == nil || len(s.Healthcheck.Test) < 2 || s.Healthcheck.Test[0] != "CMD" {
		return nil
	}
	return s.Healthcheck.Test[1:]
}

// checkBuild checks a service whose image is built here.
func checkBuild(t *testing.T, name string, s *service, dockerfile string) {
	t.Helper()
	stages := regexp.MustCompile(`(?m)^FROM \S+(?: AS (\S+))?$`).FindAllStringSubmatch(dockerfile, -1)
	if s.Build.Context != "." || s.Build.Dockerfile != "deploy/Dockerfile" {
		t.Errorf("%s is built by %+v", name, *s.Build)
	}
	if s.Build.Target != "" {
		if !slices.ContainsFunc(stages, func(stage []string) bool { return stage[1] == s.Build.Target }) {
			t.Errorf("%s: the Dockerfile has no stage %s", name, s.Build.Target)
		}
		return
	}
	for _, line := range []string{"FROM scratch", `ENTRYPOINT ["/sallyport"]`, `CMD ["serve"]`} {
		if _, last, _ := strings.Cut(dockerfile, stages[len(stages)-1][0]); !strings.Contains(stages[len(stages)-1][0]+last, line) {
			t.Errorf("the image of %s lacks %s", name, line)
		}
	}
	if len(s.Entrypoint) > 0 || len(s.Environment) > 0 {
		t.Errorf("%s changes the image's entrypoint or its environment", name)
	}
	for _, args := range [][]string{s.Command, test(s)} {
		if len(args) > 0 && args[0] == "/sallyport" {
			args = args[1:]
		}
		cmd, rest, err := newCommand().Find(args)
		if err == nil {
			err = cmd.ParseFlags(rest)
		}
		if err == nil && len(args) > 0 {
			err = cmd.Args(cmd, cmd.Flags().Args())
		}
		if err != nil || len(args) > 0 && !cmd.Runnable() {
			t.Errorf("%s calls sallyport %q: %v", name, args, err)
		}
	}
}

// TestComposePartsReachEachOther: every host and port in the configurations is that of a service in the same network that
// listens there, and what is published is listened on.
func TestComposePartsReachEachOther(t *testing.T) {
	c := copyCluster(t)
	file, ok := c.onHost(c.Services["gateway1"], "/etc/sallyport/sallyport.yaml") // where serve looks, in a folder without one
	if !ok {
		t.Fatal("the gateways have no configuration")
	}
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if problems := append(cfg.Warnings, cfg.Problems...); len(problems) > 0 {
		t.Error(problems)
	}
	nginx := readDoc(t, "deploy/cluster/nginx/nginx.conf")
	listens := map[string][]string{"postgres": {"5432"}, "redis": {"6379"}, "prometheus": {"9090"}}
	for _, l := range regexp.MustCompile(`(?m)^\s*listen (\d+)`).FindAllStringSubmatch(nginx, -1) {
		listens["nginx"] = append(listens["nginx"], l[1])
	}
	var believes string // the port at which NGINX is believed
	for _, l := range cfg.Listeners {
		host, port, _ := net.SplitHostPort(l.Address)
		if host != "0.0.0.0" {
			t.Errorf("listener %s is on %s, where only its own container reaches it", l.Name, l.Address)
		}
		if l.Believes {
			believes = port
		}
		listens["gateway1"] = append(listens["gateway1"], port)
	}
	host, port, _ := net.SplitHostPort(cfg.Status)
	if host != "0.0.0.0" {
		t.Errorf("status is on %s", cfg.Status)
	}
	listens["gateway1"] = append(listens["gateway1"], port)
	listens["gateway2"] = listens["gateway1"]

	reaches := func(from, address string) {
		t.Helper()
		host, port, err := net.SplitHostPort(address)
		s := c.Services[host]
		if err != nil || s == nil || !slices.Contains(listens[host], port) {
			t.Errorf("%s calls %s, where nobody listens", from, address)
			return
		}
		for network := range c.Services[from].Networks {
			if _, both := s.Networks[network]; both {
				return
			}
		}
		t.Errorf("%s and %s share no network", from, host)
	}
	for _, gateway := range []string{"gateway1", "gateway2"} {
		for _, address := range cfg.RateLimit.Value.Redis.Addresses {
			reaches(gateway, address)
		}
		store, err := url.Parse(cfg.Store.Value.URL)
		if err != nil {
			t.Fatal(err)
		}
		reaches(gateway, store.Host)
		for _, api := range cfg.APIs {
			for _, u := range api.Upstream.URLs {
				reaches(gateway, u.Host)
			}
		}
		reaches("nginx", net.JoinHostPort(gateway, believes))
		if !strings.Contains(nginx, fmt.Sprintf("server %s:%s;", gateway, believes)) {
			t.Errorf("NGINX doesn't call %s:%s", gateway, believes)
		}
	}
	var prometheus struct {
		ScrapeConfigs []struct {
			JobName       string                       `yaml:"job_name"`
			StaticConfigs []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
		RuleFiles []string `yaml:"rule_files"`
	}
	if err := yaml.Unmarshal([]byte(readDoc(t, "deploy/cluster/prometheus/prometheus.yml")), &prometheus); err != nil {
		t.Fatal(err)
	}
	scrape := prometheus.ScrapeConfigs[0]
	if want := []string{"gateway1:" + port, "gateway2:" + port}; scrape.JobName != "sallyport" || !slices.Equal(scrape.StaticConfigs[0].Targets, want) {
		t.Errorf("Prometheus looks at %+v, want %q", scrape, want)
	}
	for _, target := range scrape.StaticConfigs[0].Targets {
		reaches("prometheus", target)
	}
	for _, rules := range prometheus.RuleFiles {
		if host, ok := c.onHost(c.Services["prometheus"], "/etc/prometheus/"+rules); !ok {
			t.Errorf("the rules %s aren't mounted", rules)
		} else if _, err := os.Stat(host); err != nil {
			t.Error(err)
		}
	}
	for _, name := range c.cluster() {
		for _, published := range c.Services[name].Ports {
			if inside := published[strings.LastIndex(published, ":")+1:]; !slices.Contains(listens[name], inside) {
				t.Errorf("%s publishes %s and listens on %q", name, published, listens[name])
			}
		}
		for _, word := range test(c.Services[name]) {
			if u, err := url.Parse(word); err == nil && u.Host != "" && !slices.Contains(listens[name], u.Port()) {
				t.Errorf("the health check of %s asks %s", name, word)
			}
		}
	}
	checkBalancer(t, c, cfg)
}

// checkBalancer: the gateways believe NGINX's address and no other.
func checkBalancer(t *testing.T, c *tested, cfg *config.Config) {
	t.Helper()
	subnet, err := netip.ParsePrefix(c.Networks["front"].IPAM.Config[0].Subnet)
	if err != nil {
		t.Fatal(err)
	}
	address, err := netip.ParseAddr(c.Services["nginx"].Networks["front"].IPv4Address)
	if err != nil {
		t.Fatal(err)
	}
	if own := netip.PrefixFrom(address, 32); !subnet.Contains(address) || !slices.Equal(cfg.Header.Balancers, []netip.Prefix{own}) {
		t.Errorf("NGINX is at %s in %s, and the gateways believe %s", address, subnet, cfg.Header.Balancers)
	}
}

// TestClusterClearsTheSameHeaders: the cluster's NGINX does to a call what the example's does.
func TestClusterClearsTheSameHeaders(t *testing.T) {
	directives := func(file string) (list []string) {
		for _, d := range regexp.MustCompile(`(?m)^\s*((?:proxy_|ssl_verify|ssl_protocols|error_page)[^;]*);`).FindAllStringSubmatch(readDoc(t, file), -1) {
			if !strings.Contains(d[1], "certificate") || strings.Contains(d[1], "header") { // files, whose names differ
				list = append(list, strings.Join(strings.Fields(d[1]), " "))
			}
		}
		return list
	}
	cluster, example := directives("deploy/cluster/nginx/nginx.conf"), directives("examples/behind-nginx/nginx.conf")
	if len(example) < 25 || !slices.Equal(cluster, example) {
		t.Errorf("deploy/cluster/nginx/nginx.conf has\n%s\nexamples/behind-nginx/nginx.conf has\n%s", strings.Join(cluster, "\n"), strings.Join(example, "\n"))
	}
}
