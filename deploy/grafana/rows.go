package main

// A row is a heading and the panels below it.
type row struct {
	title  string
	panels []panel
}

// A panel is one graph, or one number.
type panel struct {
	title, unit, help string
	queries           []query
	stacked           bool

	stat      bool    // a number; it is
	limit     float64 // green below this, red from here on
	goodAbove bool    // or the other way round
}

// A query is an expression, in which $m stands for the matchers of the dashboard's variables.
type query struct{ expr, legend string }

// one is the queries of a panel that has only one.
func one(expr, legend string) []query { return []query{{expr, legend}} }

// quantiles are the median and the 99th percentile of a histogram.
func quantiles(metric string) []query {
	return []query{
		{`histogram_quantile(0.5, sum by (le) (rate(` + metric + `_bucket{$m}[$__rate_interval])))`, "median"},
		{`histogram_quantile(0.99, sum by (le) (rate(` + metric + `_bucket{$m}[$__rate_interval])))`, "99 %"},
	}
}

// quantileBy is the 99th percentile of a histogram for each value of a label.
func quantileBy(metric, label string) []query {
	return one(`histogram_quantile(0.99, sum by (`+label+`, le) (rate(`+metric+`_bucket{$m}[$__rate_interval])))`, "{{"+label+"}}")
}

// rate is how often something happens in a second, for each value of a label.
func rate(metric, label string) []query {
	return one(`sum by (`+label+`) (rate(`+metric+`{$m}[$__rate_interval]))`, "{{"+label+"}}")
}

// now is a gauge summed over the nodes, for each value of a label.
func now(metric, label string) []query {
	return one(`sum by (`+label+`) (`+metric+`{$m})`, "{{"+label+"}}")
}

// budget is how much of what there may be of memory for something is in use.
func budget(used, what, legend string) query {
	return query{`max(starling_mailstore_` + used + `{$m} / on (namespace, job, instance) starling_mailstore_memory_limit_bytes{$m, what="` + what + `"})`, legend}
}

// rows is the dashboard, from top to bottom.
func rows() []row {
	return []row{
		overview(), mailFlow(), sessions(), commands(), notifications(), logins(),
		postgres(), objects(), nats(), collector(), goRuntime(),
	}
}

func overview() row {
	return row{"Overview", []panel{
		{title: "Nodes ready", stat: true, limit: 1, goodAbove: true, queries: one(`sum(starling_ready{$m})`, "")},
		{title: "Nodes draining", stat: true, queries: one(`sum(starling_draining{$m})`, "")},
		{
			title: "Dependencies down", stat: true, limit: 1, help: "On how many nodes one of PostgreSQL, its schema, NATS and S3 is missing, summed.",
			queries: one(`count(starling_dependency_up{$m} == 0) or vector(0)`, ""),
		},
		{title: "Sessions", stat: true, unit: "short", queries: one(`sum(starling_imap_sessions{$m})`, "")},
		{
			title: "Commands failing", stat: true, unit: "percentunit", limit: 0.05, help: "Answered with NO or BYE, logins left out.",
			queries: one(`sum(rate(starling_imap_commands_total{$m, result=~"no|bye", command!~"(?i:login|authenticate)"}[$__rate_interval])) / sum(rate(starling_imap_commands_total{$m, command!~"(?i:login|authenticate)"}[$__rate_interval]))`, ""),
		},
		{
			title: "Deliveries deferred", stat: true, unit: "percentunit", limit: 0.05,
			queries: one(`sum(rate(starling_lmtp_deliveries_total{$m, result="deferred"}[$__rate_interval])) / sum(rate(starling_lmtp_deliveries_total{$m}[$__rate_interval]))`, ""),
		},
		{title: "Ready, by node", queries: one(`starling_ready{$m}`, "{{instance}}")},
		{title: "Dependencies, by node", help: "1: it answers.", queries: one(`starling_dependency_up{$m}`, "{{dependency}} {{instance}}")},
		{title: "Versions", stacked: true, queries: one(`count by (version) (starling_build_info{$m})`, "{{version}}")},
	}}
}

func mailFlow() row {
	return row{"Mail flow", []panel{
		{title: "Deliveries", unit: "ops", stacked: true, help: "Recipients of messages by LMTP.", queries: rate("starling_lmtp_deliveries_total", "result")},
		{title: "Time of a delivery", unit: "s", queries: quantiles("starling_lmtp_delivery_duration_seconds")},
		{title: "Changes committed", unit: "ops", stacked: true, queries: rate("starling_mailstore_commits_total", "operation")},
		{title: "Octets", unit: "Bps", queries: []query{
			{`sum(rate(starling_lmtp_received_bytes_total{$m}[$__rate_interval]))`, "received by LMTP"},
			{`sum(rate(starling_imap_received_bytes_total{$m}[$__rate_interval]))`, "received by IMAP"},
			{`sum(rate(starling_imap_sent_bytes_total{$m}[$__rate_interval]))`, "sent by IMAP"},
		}},
		{title: "LMTP sessions", unit: "short", queries: now("starling_lmtp_sessions", "instance")},
		{title: "Over quota", unit: "ops", queries: one(`sum(rate(starling_mailstore_over_quota_total{$m}[$__rate_interval]))`, "refused")},
	}}
}

func sessions() row {
	return row{"Sessions", []panel{
		{title: "Sessions by state", unit: "short", stacked: true, queries: now("starling_imap_sessions", "state")},
		{title: "Sessions by node", unit: "short", stacked: true, queries: now("starling_imap_sessions", "instance")},
		{title: "Ends of sessions", unit: "ops", stacked: true, queries: rate("starling_imap_disconnects_total", "reason")},
		{title: "Connections", unit: "short", help: "imap and imaps share what is allowed.", queries: []query{
			{`sum by (listener) (starling_listener_connections{$m})`, "{{listener}}"},
			{`sum by (listener) (starling_listener_max_connections{$m, listener!="imaps"})`, "allowed: {{listener}}"},
		}},
		{title: "Connections accepted", unit: "ops", queries: rate("starling_listener_accepted_total", "listener")},
		{title: "Connections refused", unit: "ops", help: "By limits of the node, an address, an account or a tenant, for want of a PROXY header, or for one from an address that is not listed.", queries: []query{
			{`sum by (listener, reason) (rate(starling_listener_refused_total{$m}[$__rate_interval]))`, "{{listener}}: {{reason}}"},
			{`sum by (reason) (rate(starling_imap_refused_total{$m}[$__rate_interval]))`, "imap: {{reason}}"},
			{`sum by (reason) (rate(starling_lmtp_refused_total{$m}[$__rate_interval]))`, "lmtp: {{reason}}"},
		}},
	}}
}

func commands() row {
	return row{"Commands", []panel{
		{title: "Commands", unit: "ops", stacked: true, queries: rate("starling_imap_commands_total", "command")},
		{title: "Results", unit: "ops", stacked: true, queries: rate("starling_imap_commands_total", "result")},
		{title: "Time of a command, 99 %", unit: "s", help: "IDLE is no command of its own here.", queries: quantileBy("starling_imap_command_duration_seconds", "command")},
		{title: "Rows of messages to answer with", unit: "ops", stacked: true, help: "Remembered (kept), or asked for (read).", queries: rate("starling_mailstore_rows_total", "source")},
		{title: "Conflicts", unit: "ops", help: "Compare-and-set on a mailbox that another node was faster with; it is tried again.", queries: []query{
			{`sum(rate(starling_mailstore_conflicts_total{$m}[$__rate_interval]))`, "conflicts"},
		}},
		{title: "Changes in one commit", unit: "short", queries: quantiles("starling_mailstore_group_size")},
		{title: "Bugs", unit: "ops", help: "Panics end one session; a corrupt object is never shown.", queries: []query{
			{`sum(rate(starling_imap_panics_total{$m}[$__rate_interval]))`, "panics"},
			{`sum(rate(starling_mailstore_corrupt_objects_total{$m}[$__rate_interval]))`, "corrupt objects"},
			{`sum by (what) (rate(starling_mailstore_memory_refused_total{$m}[$__rate_interval]))`, "no memory for {{what}}"},
		}},
	}}
}

func notifications() row {
	return row{"Notifications", []panel{
		{title: "Notifications to clients in IDLE", unit: "ops", queries: rate("starling_imap_notifications_total", "instance")},
		{title: "From the commit to the client", unit: "s", help: "On whatever node the commit was.", queries: quantiles("starling_imap_notification_latency_seconds")},
		{title: "From the commit to the other node", unit: "s", queries: quantiles("starling_mailstore_hint_latency_seconds")},
		{title: "Catching up", unit: "ops", stacked: true, help: "Reads of what changed, by what told of it.", queries: rate("starling_mailstore_catch_ups_total", "cause")},
		{title: "Found by the sweep only", unit: "ops", help: "With NATS connected this should be nought.", queries: rate("starling_mailstore_sweep_found_total", "instance")},
		{title: "Age of the last sweep", unit: "s", queries: one(`time() - starling_mailstore_last_sweep_timestamp_seconds{$m}`, "{{instance}}")},
		{title: "Mailboxes held", unit: "short", stacked: true, queries: now("starling_mailstore_mailboxes", "instance")},
		{title: "Loads", unit: "ops", stacked: true, queries: rate("starling_mailstore_loads_total", "kind")},
		{title: "Time of a sweep", unit: "s", queries: quantiles("starling_mailstore_sweep_duration_seconds")},
	}}
}

func logins() row {
	return row{"Logins and TLS", []panel{
		{title: "Logins", unit: "ops", stacked: true, queries: rate("starling_auth_logins_total", "result")},
		{title: "Wait for a hash", unit: "s", help: "Passwords are hashed only so many at a time.", queries: quantiles("starling_auth_hash_wait_seconds")},
		{title: "Hashes", unit: "ops", queries: rate("starling_auth_hashes_total", "instance")},
		{title: "TLS handshakes", unit: "ops", stacked: true, queries: rate("starling_tls_handshakes_total", "result")},
		{title: "TLS handshakes that wait for their turn", unit: "short", queries: now("starling_tls_handshakes_waiting", "instance")},
		{title: "Certificates read again", unit: "ops", queries: rate("starling_tls_reloads_total", "result")},
		{title: "Certificates expire in", unit: "s", queries: one(`min by (certificate) (starling_tls_certificate_expiry_timestamp_seconds{$m}) - time()`, "{{certificate}}")},
	}}
}

func postgres() row {
	return row{"PostgreSQL", []panel{
		{title: "Statements", unit: "ops", stacked: true, queries: rate("starling_postgres_statement_duration_seconds_count", "statement")},
		{title: "Time of a statement, 99 %", unit: "s", queries: quantileBy("starling_postgres_statement_duration_seconds", "statement")},
		{title: "Errors", unit: "ops", queries: []query{
			{`sum by (class) (rate(starling_postgres_errors_total{$m}[$__rate_interval]))`, "{{class}}"},
			{`sum(rate(starling_postgres_retries_total{$m}[$__rate_interval]))`, "retried"},
			{`sum by (outcome) (rate(starling_postgres_in_doubt_total{$m}[$__rate_interval]))`, "in doubt: {{outcome}}"},
			{`sum(rate(starling_postgres_past_refused_total{$m}[$__rate_interval]))`, "of the past, refused"},
		}},
		{title: "Connections", unit: "short", queries: []query{
			{`sum by (state) (starling_postgres_connections{$m})`, "{{state}}"},
			{`sum(starling_postgres_max_connections{$m})`, "allowed"},
		}},
		{title: "Wait for a connection", unit: "s", help: "On average, for all that asked for one.", queries: one(
			`sum by (instance) (rate(starling_postgres_acquire_wait_seconds_total{$m}[$__rate_interval])) / sum by (instance) (rate(starling_postgres_acquires_total{$m}[$__rate_interval]))`, "{{instance}}")},
		{title: "Round trips for each command", unit: "short", queries: one(
			`sum(rate(starling_postgres_round_trips_total{$m}[$__rate_interval])) / sum(rate(starling_imap_commands_total{$m}[$__rate_interval]))`, "round trips")},
		{title: "New connections", unit: "ops", queries: rate("starling_postgres_dials_total", "instance")},
		{title: "Had to wait for a connection", unit: "ops", queries: rate("starling_postgres_acquire_waits_total", "instance")},
		{title: "Wait for a connection now", unit: "short", queries: now("starling_postgres_acquires_waiting", "instance")},
		{title: "Turned away", unit: "ops", stacked: true, help: "Calls that did not wait: no connection can be had (away), or too many wait for one (long).", queries: rate("starling_postgres_shed_total", "reason")},
		{title: "Settings that may lose mail", unit: "short", help: "fsync, full_page_writes or synchronous_commit is off, or no synchronous standby is named.", queries: one(`max by (job) (starling_postgres_durability_warnings{$m})`, "{{job}}")},
	}}
}

func objects() row {
	return row{"S3 and cache", []panel{
		{title: "Requests", unit: "ops", stacked: true, queries: rate("starling_s3_requests_total", "operation")},
		{title: "Results", unit: "ops", stacked: true, queries: rate("starling_s3_requests_total", "result")},
		{title: "Time of a request, 99 %", unit: "s", queries: quantileBy("starling_s3_request_duration_seconds", "operation")},
		{title: "Retries", unit: "ops", queries: rate("starling_s3_retries_total", "operation")},
		{title: "Circuit breaker", unit: "short", help: "1 in the state that it is in. Open: requests fail at once, but for one every 2 s.", queries: now("starling_s3_breaker_state", "state")},
		{title: "Not sent", unit: "ops", help: "Requests while the circuit breaker was open, and retries for which there was no budget.", queries: []query{
			{`sum(rate(starling_s3_breaker_refused_total{$m}[$__rate_interval]))`, "requests"},
			{`sum(rate(starling_s3_retries_refused_total{$m}[$__rate_interval]))`, "retries"},
		}},
		{title: "Sent once more", unit: "ops", help: "GETs that were later than 95 % of the others.", queries: rate("starling_s3_hedges_total", "result")},
		{title: "Large messages put whole at their end", unit: "ops", queries: rate("starling_s3_uploads_put_whole_total", "instance")},
		{title: "Octets", unit: "Bps", queries: rate("starling_s3_bytes_total", "direction")},
		{title: "Requests in flight", unit: "short", queries: now("starling_s3_requests_in_flight", "instance")},
		{title: "Found in the cache", unit: "percentunit", queries: one(
			`sum by (tier) (rate(starling_cache_hits_total{$m}[$__rate_interval])) / on () group_left () (sum(rate(starling_cache_hits_total{$m}[$__rate_interval])) + sum(rate(starling_cache_misses_total{$m}[$__rate_interval])))`, "{{tier}}")},
		{title: "Size of the cache", unit: "bytes", queries: now("starling_cache_bytes", "tier")},
		{title: "Removed from the cache", unit: "ops", queries: rate("starling_cache_evictions_total", "tier")},
		{title: "Trouble with the cache", unit: "ops", queries: []query{
			{`sum by (instance) (rate(starling_cache_bypasses_total{$m}[$__rate_interval]))`, "passed by {{instance}}"},
			{`sum by (instance) (rate(starling_cache_disk_errors_total{$m}[$__rate_interval]))`, "disk errors {{instance}}"},
		}},
	}}
}

func nats() row {
	return row{"NATS", []panel{
		{title: "Connected", queries: one(`starling_nats_connected{$m}`, "{{instance}}")},
		{title: "Other nodes heard", unit: "short", queries: one(`starling_nats_peers{$m}`, "{{instance}}")},
		{title: "Events", unit: "ops", queries: []query{
			{`sum(rate(starling_nats_published_total{$m}[$__rate_interval]))`, "published"},
			{`sum(rate(starling_nats_received_total{$m}[$__rate_interval]))`, "received"},
		}},
		{title: "What went wrong", unit: "ops", help: "Each makes nodes compare what they watch with PostgreSQL.", queries: []query{
			{`sum(rate(starling_nats_unpublished_total{$m}[$__rate_interval]))`, "not published"},
			{`sum(rate(starling_nats_lost_total{$m}[$__rate_interval]))`, "lost"},
			{`sum(rate(starling_nats_late_total{$m}[$__rate_interval]))`, "late"},
			{`sum(rate(starling_nats_doubled_total{$m}[$__rate_interval]))`, "doubled"},
			{`sum(rate(starling_nats_dropped_total{$m}[$__rate_interval]))`, "dropped"},
			{`sum(rate(starling_nats_overflows_total{$m}[$__rate_interval]))`, "overflows"},
			{`sum(rate(starling_nats_malformed_total{$m}[$__rate_interval]))`, "malformed"},
		}},
		{title: "Doubts", unit: "ops", queries: []query{
			{`sum(rate(starling_nats_suspects_total{$m}[$__rate_interval]))`, "suspects"},
			{`sum(rate(starling_nats_silences_total{$m}[$__rate_interval]))`, "silences"},
			{`sum(rate(starling_nats_reconnects_total{$m}[$__rate_interval]))`, "reconnects"},
		}},
	}}
}

func collector() row {
	return row{"Collector", []panel{
		{title: "Since the last run", unit: "s", help: "On any node.", queries: one(`time() - max by (job) (starling_collector_last_run_timestamp_seconds{$m})`, "{{job}}")},
		{title: "Runs", unit: "ops", stacked: true, queries: rate("starling_collector_runs_total", "result")},
		{title: "Due", unit: "short", help: "And not done, of at most 1000 that were looked at.", queries: one(`max by (what) (starling_collector_backlog{$m})`, "{{what}}")},
		{title: "Removed", unit: "ops", queries: rate("starling_collector_removed_total", "what")},
	}}
}

func goRuntime() row {
	return row{"Process", []panel{
		{title: "CPU", unit: "percentunit", help: "1 is one core.", queries: one(`rate(process_cpu_seconds_total{$m}[$__rate_interval])`, "{{instance}}")},
		{title: "Memory", unit: "bytes", queries: []query{
			{`process_resident_memory_bytes{$m}`, "resident {{instance}}"},
			{`go_memstats_heap_inuse_bytes{$m}`, "heap {{instance}}"},
		}},
		{title: "Memory for mail", unit: "bytes", queries: []query{
			{`sum by (instance) (starling_mailstore_snapshot_bytes{$m})`, "mailboxes {{instance}}"},
			{`sum by (instance) (starling_mailstore_inflight_bytes{$m})`, "coming in {{instance}}"},
			{`sum by (instance) (starling_mailstore_rows_bytes{$m})`, "rows going out {{instance}}"},
			{`sum by (instance) (starling_mailstore_read_bytes{$m})`, "bodies going out {{instance}}"},
			{`sum by (instance) (starling_mailstore_kept_rows_bytes{$m})`, "rows kept {{instance}}"},
			{`sum by (instance) (starling_mailstore_search_bytes{$m})`, "searches {{instance}}"},
			{`sum by (instance) (starling_mailstore_change_bytes{$m})`, "changes {{instance}}"},
		}},
		{title: "Memory for mail, of what there may be", unit: "percentunit", help: "The node that has most of it in use. At 100 % who asks for more waits, and is then refused.", queries: []query{
			budget("snapshot_bytes", "snapshot", "mailboxes"), budget("inflight_bytes", "message", "coming in"),
			budget("rows_bytes", "rows", "rows going out"), budget("read_bytes", "read", "bodies going out"),
			budget("change_bytes", "change", "changes of many messages"),
		}},
		{title: "Goroutines", unit: "short", queries: one(`go_goroutines{$m}`, "{{instance}}")},
		{title: "Pauses for garbage", unit: "s", queries: one(`rate(go_gc_duration_seconds_sum{$m}[$__rate_interval])`, "{{instance}}")},
		{title: "File descriptors", unit: "percentunit", queries: one(`process_open_fds{$m} / process_max_fds{$m}`, "{{instance}}")},
	}}
}
