package main

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"
)

// What Grafana imports is what the tables say.
func TestGenerated(t *testing.T) {
	t.Parallel()
	want, err := dashboard()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("starling.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("starling.json is not what rows.go says: go generate ./deploy/grafana")
	}
}

// No panel lies over another, none goes over the edge, and each has a name of its own.
func TestGrid(t *testing.T) {
	t.Parallel()
	content, err := dashboard()
	if err != nil {
		t.Fatal(err)
	}
	type cell struct{ x, y int }
	var board struct {
		Panels []struct {
			ID          int
			Type, Title string
			GridPos     struct{ X, Y, W, H int }
			Targets     []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(content, &board); err != nil {
		t.Fatal(err)
	}
	taken, ids := make(map[cell]string), make(map[int]bool)
	for _, p := range board.Panels {
		if ids[p.ID] {
			t.Errorf("%s: its id %d is that of another", p.Title, p.ID)
		}
		ids[p.ID] = true
		if p.Title == "" || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d has no title or no query", p.ID)
		}
		if p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%s goes over the edge", p.Title)
		}
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := cell{p.GridPos.X + x, p.GridPos.Y + y}
				if other, ok := taken[at]; ok {
					t.Fatalf("%s lies over %s", p.Title, other)
				}
				taken[at] = p.Title
			}
		}
	}
}
