// Command grafana writes Starling's dashboard, starling.json, from the tables in rows.go, which
// are shorter to read and to change than the file that Grafana imports:
//
//	go generate ./deploy/grafana
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

//go:generate go run . starling.json

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: grafana FILE")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "grafana:", err)
		os.Exit(1)
	}
}

func write(name string) error {
	content, err := dashboard()
	if err != nil {
		return err
	}
	return os.WriteFile(name, content, 0o644) //nolint:gosec // everybody may read it
}

// matchers choose the nodes that the dashboard's variables name. Only Kubernetes has namespaces.
const matchers = `namespace=~"$namespace", job=~"$job", instance=~"$instance"`

// object is one of JSON's.
type object map[string]any

var datasource = object{"type": "prometheus", "uid": "${datasource}"}

// dashboard is the file that Grafana imports.
func dashboard() ([]byte, error) {
	var panels []object
	id, y := 0, 0
	next := func() int { id++; return id }
	for _, row := range rows() {
		panels = append(panels, object{
			"id": next(), "type": "row", "title": row.title, "collapsed": false, "panels": []object{},
			"gridPos": object{"x": 0, "y": y, "w": 24, "h": 1},
		})
		y++
		x, height := 0, 0
		for _, p := range row.panels {
			w, h := p.size()
			if x+w > 24 {
				x, y = 0, y+height
			}
			panels = append(panels, p.object(next(), object{"x": x, "y": y, "w": w, "h": h}))
			x, height = x+w, h
		}
		y += height
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	err := e.Encode(object{
		"title": "Starling", "uid": "starling", "tags": []string{"starling", "mail"},
		"description":   "Whether mail flows: sessions, deliveries, notifications, and what they stand on.",
		"schemaVersion": 39, "version": 1, "editable": true, "graphTooltip": 1,
		"time": object{"from": "now-3h", "to": "now"}, "refresh": "30s", "timezone": "browser",
		"templating":  object{"list": variables()},
		"annotations": object{"list": []object{}},
		"links":       []object{}, "panels": panels,
	})
	return b.Bytes(), err
}

// variables are what one chooses at the top of the dashboard.
func variables() []object {
	ofLabel := func(name, label, within string) object {
		query := fmt.Sprintf("label_values(starling_build_info%s, %s)", within, name)
		return object{
			"name": name, "label": label, "type": "query", "datasource": datasource,
			"definition": query, "query": object{"query": query, "refId": name},
			"includeAll": true, "allValue": ".*", "multi": true, "refresh": 2, "sort": 1,
			"current": object{"text": "All", "value": "$__all"},
		}
	}
	return []object{
		{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": object{}},
		ofLabel("namespace", "Namespace", ""),
		ofLabel("job", "Cluster", `{namespace=~"$namespace"}`),
		ofLabel("instance", "Node", `{namespace=~"$namespace", job=~"$job"}`),
	}
}

// size is how much room a panel takes, in Grafana's grid, which is 24 wide.
func (p *panel) size() (w, h int) {
	if p.stat {
		return 4, 4
	}
	return 8, 8
}

// object is the panel as Grafana wants it.
func (p *panel) object(id int, grid object) object {
	targets := make([]object, len(p.queries))
	for i, q := range p.queries {
		targets[i] = object{
			"refId": string(rune('A' + i)), "datasource": datasource,
			"expr": strings.ReplaceAll(q.expr, "$m", matchers), "legendFormat": q.legend, "range": !p.stat, "instant": p.stat,
		}
	}
	o := object{
		"id": id, "gridPos": grid, "title": p.title, "description": p.help, "datasource": datasource, "targets": targets,
	}
	defaults := object{"unit": p.unit, "min": 0}
	if p.stat {
		o["type"] = "stat"
		o["options"] = object{
			"colorMode": "background", "graphMode": "none", "reduceOptions": object{"calcs": []string{"lastNotNull"}, "values": false},
		}
		defaults["thresholds"] = p.thresholds()
	} else {
		o["type"] = "timeseries"
		o["options"] = object{
			"legend":  object{"displayMode": "list", "placement": "bottom", "showLegend": true},
			"tooltip": object{"mode": "multi", "sort": "desc"},
		}
		defaults["custom"] = object{"drawStyle": "line", "fillOpacity": 10, "showPoints": "never", "stacking": object{"mode": p.stacking()}}
	}
	o["fieldConfig"] = object{"defaults": defaults, "overrides": []object{}}
	return o
}

func (p *panel) stacking() string {
	if p.stacked {
		return "normal"
	}
	return "none"
}

// thresholds are a stat's colours: green is good.
func (p *panel) thresholds() object {
	below, above := "green", "red"
	if p.goodAbove {
		below, above = above, below
	}
	steps := []object{{"color": below, "value": nil}}
	if p.limit != 0 {
		steps = append(steps, object{"color": above, "value": p.limit})
	}
	return object{"mode": "absolute", "steps": steps}
}
