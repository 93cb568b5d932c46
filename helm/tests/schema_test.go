package chart_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What is wrong is refused, with where it stands.
func TestSchemaRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ values, want string }{
		// Of another type, out of range, or none of those that are allowed.
		{"replicas: two", "at '/replicas': got string, want integer"},
		{"replicas: -1", "at '/replicas': minimum"},
		{"image: {pullPolicy: Sometimes}", "at '/image/pullPolicy': value must be one of 'Always', 'IfNotPresent', 'Never'"},
		{"image: {digest: sha256:abc}", "at '/image/digest'"},
		{"image: {tag: 'a b'}", "at '/image/tag'"},
		{"tls: {existingSecret: Not_A_Name}", "at '/tls/existingSecret'"},
		{"tls: {additionalSecrets: [a, a]}", "at '/tls/additionalSecrets': items at 0 and 1 are equal"},
		{"s3: {endpoint: s3.example}", "at '/s3/endpoint': 's3.example' does not match pattern"},
		{"s3: {endpoint: 'https://key@s3.example'}", "at '/s3/endpoint'"},
		{"s3: {bucket: UPPER}", "at '/s3/bucket'"},
		{"s3: {addressing: dns}", "at '/s3/addressing': value must be one of '', 'path', 'host'"},
		{"nats: {urls: ['http://nats']}", "at '/nats/urls/0'"},
		{"nats: {urls: ['nats://user:password@nats']}", "at '/nats/urls/0'"},
		{"shutdown: {marginSeconds: 0}", "at '/shutdown/marginSeconds': minimum: got 0, want 5"},
		{"shutdown: {graceSeconds: 30s}", "at '/shutdown/graceSeconds': got string, want integer"},
		{"cache: {disk: 20GB}", "at '/cache/disk'"},
		{"tempDir: {medium: Disk}", "at '/tempDir/medium'"},
		{"resources: {requests: {memory: much}}", "at '/resources/requests/memory'"},
		{"podDisruptionBudget: {maxUnavailable: 0}", "at '/podDisruptionBudget/maxUnavailable': minimum: got 0, want 1"},
		{"podDisruptionBudget: {maxUnavailable: 0%}", "at '/podDisruptionBudget/maxUnavailable'"},
		{"topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: Never}]", "at '/topologySpreadConstraints/0/whenUnsatisfiable'"},
		{"extraEnv: [{value: x}]", "at '/extraEnv/0': missing property 'name'"},
		{"networkPolicy: {lmtpFrom: [{namespace: mta}]}", "at '/networkPolicy/lmtpFrom/0': additional properties 'namespace' not allowed"},
		{"serviceMonitor: {interval: often}", "at '/serviceMonitor/interval'"},
		{"prometheusRule: {runbookURL: here}", "at '/prometheusRule/runbookURL'"},
		// Settings of the program.
		{"config: {mail: {retention: 14d}}", "at '/config/mail/retention'"},
		{"config: {mail: {retention: 336}}", "at '/config/mail/retention': got number, want string"},
		{"config: {mail: {retention: -1h}}", "at '/config/mail/retention'"},
		{"config: {mail: {max_message: 1000}}", "at '/config/mail/max_message': minimum"},
		{"config: {mail: {memory: {mailboxes: 1Gi}}}", "at '/config/mail/memory/mailboxes': got string, want integer"},
		{"config: {mail: {memory: {incoming: -1}}}", "at '/config/mail/memory/incoming': minimum"},
		{"config: {mail: {memory: {bodies: 1}}}", "at '/config/mail/memory': additional properties 'bodies' not allowed"},
		{"config: {imap: {proxy_networks: [10.0.0.1]}}", "at '/config/imap/proxy_networks/0'"},
		{"config: {imap: {max_conections: 5}}", "at '/config/imap': additional properties 'max_conections' not allowed"},
		{"config: {imap: {listen: [':143']}}", "at '/config/imap': additional properties 'listen' not allowed"},
		{"config: {nats: {password: secret}}", "at '/config/nats': additional properties 'password' not allowed"},
		{"config: {traces: {sample: 2}}", "at '/config/traces/sample': maximum"},
		{"config: {traces: {endpoint: 'http://user:password@otel'}}", "at '/config/traces/endpoint'"},
		{"config: {log: {level: all}}", "at '/config/log/level': value must be one of 'debug', 'info', 'warn', 'error'"},
		// What does not exist.
		{"replicaCount: 3", "at '': additional properties 'replicaCount' not allowed"},
		{"postgres: {host: db}", "at '/postgres': additional properties 'host' not allowed"},
		{"services: {imap: {ports: {pop3: 110}}}", "at '/services/imap/ports': additional properties 'pop3' not allowed"},
		{"services: {imap: {ports: {imap: 0}}}", "at '/services/imap/ports/imap': minimum: got 0, want 1"},
		{"services: {admin: {ports: {imap: 143}}}", "at '/services/admin'"},
		{"services: {Public: {ports: {imap: 143}}}", "at '/services': additional properties 'Public' not allowed"},
		// What must be given, and what only once.
		{"image: {repository: ''}", "at '/image/repository'"},
		{"postgres: {existingSecret: {name: ''}}", "at '/postgres/dsn': minLength: got 0, want 1"},
		{"postgres: {dsn: 'postgres://a'}", "at '/postgres/dsn': maxLength: got 12, want 0"},
		{"migration: {dsn: 'postgres://a', existingSecret: {name: b}}", "at '/migration/dsn': maxLength: got 12, want 0"},
		{"s3: {endpoint: ''}", "at '/s3/endpoint': minLength: got 0, want 1"},
		{"s3: {bucket: ''}", "at '/s3/bucket': minLength: got 0, want 1"},
		{"s3: {existingSecret: {name: ''}, accessKey: a}", "at '/s3/secretKey': minLength: got 0, want 1"},
		{"s3: {accessKey: a, secretKey: b}", "at '/s3/accessKey': maxLength: got 1, want 0"},
		{"nats: {urls: []}", "at '/nats/urls': minItems: got 0, want 1"},
		{"nats: {user: a}", "at '/nats/password': minLength: got 0, want 1"},
		{"nats: {existingSecret: {name: a}}", "at '/nats/existingSecret'"},
		{"nats: {existingSecret: {name: a, tokenKey: t}, token: t}", "at '/nats/token': maxLength: got 1, want 0"},
		{"nats: {tls: {clientCertificate: true}}", "at '/nats/tls/existingSecret': minLength: got 0, want 1"},
		{"tls: {existingSecret: ''}", "at '/tls/existingSecret': minLength: got 0, want 1"},
		{"{tls: {existingSecret: '', additionalSecrets: [a]}, config: {imap: {plaintext_login: true}}}", "at '/tls/existingSecret': minLength: got 0, want 1"},
		{"tls: {certificate: {enabled: true, dnsNames: [a.example], issuerRef: {name: i}}}", "at '/tls/existingSecret': maxLength"},
		{"tls: {existingSecret: '', certificate: {enabled: true, issuerRef: {name: i}}}", "at '/tls/certificate/dnsNames': minItems: got 0, want 1"},
		{"tls: {existingSecret: '', certificate: {enabled: true, dnsNames: [a.example]}}", "at '/tls/certificate/issuerRef/name': minLength: got 0, want 1"},
		{"trial: {enabled: true}", "at '/postgres/existingSecret/name': maxLength"},
		// What cannot work together.
		{"listeners: {imap: false, imaps: false, lmtp: false}", "at '/listeners'"},
		{"services: {lmtp: {type: LoadBalancer}}", "at '/services/lmtp': missing property 'loadBalancerSourceRanges'"},
		{"services: {imap: {nodePorts: {imap: 30143}}}", "at '/services/imap/nodePorts': maxProperties: got 1, want 0"},
		{"strategy: {maxSurge: 0}", "at '/strategy/maxSurge'"},
		{"autoscaling: {enabled: true, minReplicas: 11}", "autoscaling.minReplicas: is 11; want at most autoscaling.maxReplicas, 10"},
		{"autoscaling: {enabled: true, cpu: 0}", "at '/autoscaling/sessions': minimum: got 0, want 1"},
		{"{autoscaling: {enabled: true}, resources: {requests: {cpu: null}}}", "at '/resources/requests': missing property 'cpu'"},
		{"networkPolicy: {egress: {enabled: true}}", "at '/networkPolicy/egress/rules': minItems: got 0, want 1"},
	} {
		t.Run(c.values, func(t *testing.T) {
			t.Parallel()
			_, err := tryRender("post", minimal(t, c.values))
			if err == nil {
				t.Fatalf("it was taken; want %s", c.want)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v\nwant %s", err, c.want)
			}
			// One thing is wrong, and little is said.
			if n := strings.Count(err.Error(), "at '/"); n > 6 {
				t.Errorf("%d places are named: %v", n, err)
			}
		})
	}
}

// What is unusual and right is taken.
func TestSchemaAccepts(t *testing.T) {
	t.Parallel()
	for _, values := range []string{
		"",
		"replicas: 0",
		"config: {hostname: imap.example}",
		"global: {imageRegistry: registry.example}",
		"config: {mail: {collect: -1s, retention: 1h30m}}",
		"config: {imap: {proxy_networks: ['fd00::/8', 10.0.0.0/8]}, traces: {endpoint: 'http://otel:4318/v1/traces', sample: 1}}",
		"{tls: {existingSecret: ''}, config: {imap: {plaintext_login: true}}}",
		"s3: {existingSecret: {name: ''}}", // keys from the platform
		"s3: {endpoint: 'http://[fd00::1]:9000'}",
		"nats: {token: secret}",
		"nats: {existingSecret: {name: nats, credentialsKey: nats.creds}}",
		"nats: {tls: {existingSecret: nats-tls}}",
		"services: {lmtp: {type: LoadBalancer, loadBalancerSourceRanges: [192.0.2.0/24]}}",
		"services: {lmtp: {type: LoadBalancer, ports: {lmtp: null, imap: 143}}}",
		"strategy: {maxSurge: 0, maxUnavailable: 1}",
		"podDisruptionBudget: {maxUnavailable: 25%}",
		"resources: {limits: {memory: 1G, cpu: 2}}",
		"topologySpreadConstraints: []",
		"autoscaling: {enabled: true, cpu: 0, sessions: 1000}",
		"podSecurityContext: {runAsUser: null, runAsGroup: null, fsGroup: null}", // as OpenShift wants it
		"tolerations: [{operator: Exists}]",
	} {
		t.Run(values, func(t *testing.T) {
			t.Parallel()
			r := render(t, "post", minimal(t, values))
			for i, o := range r.objects {
				if errs := validate(t, o); len(errs) > 0 {
					t.Errorf("%v in:\n%s", errs.ToAggregate(), r.texts[i])
				}
			}
		})
	}
}

// Every value that is in the schema is in values.yaml, but for those of Services and of the
// program, and those that Helm and Kubernetes know; render holds the other direction.
func TestSchemaHasNoMore(t *testing.T) {
	t.Parallel()
	c, err := loadChart()
	if err != nil {
		t.Fatal(err)
	}
	for path := range schemaLeaves(t, "") {
		first, _, _ := strings.Cut(path, ".")
		if slices.Contains([]string{"global", "config", "services", "affinity", "resources"}, first) || strings.HasPrefix(path, "migration.resources.") {
			continue
		}
		var at any = c.Values
		for key := range strings.SplitSeq(path, ".") {
			below, _ := at.(map[string]any)
			value, ok := below[key]
			if !ok {
				t.Errorf("%s is in the schema and not in values.yaml", path)
				break
			}
			at = value
		}
	}
}

// schemaLeaves returns the paths of the schema's properties below one, those that have properties themselves excepted.
func schemaLeaves(t *testing.T, below string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(chartDir, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var root map[string]any
	if err := json.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	definitions, _ := root["definitions"].(map[string]any)
	leaves := make(map[string]bool)
	var walk func(schema map[string]any, path string)
	walk = func(schema map[string]any, path string) {
		if ref, ok := schema["$ref"].(string); ok {
			schema, _ = definitions[strings.TrimPrefix(ref, "#/definitions/")].(map[string]any)
		}
		properties, ok := schema["properties"].(map[string]any)
		if !ok {
			leaves[strings.TrimPrefix(path, ".")] = true
			return
		}
		for key, value := range properties {
			value, _ := value.(map[string]any)
			walk(value, path+"."+key)
		}
	}
	if below != "" {
		properties, _ := root["properties"].(map[string]any)
		root, _ = properties[below].(map[string]any)
	}
	walk(root, "")
	return leaves
}
